"""SHA-1 against hashlib; datasketch's signature against its definition and datasketch, and through the step."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import duplicate_graph as graph
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_duplicates import families
from test_shingles_minhash import LONG, SMALL, packed

from headrace.recipe.schema import Near
from headrace.select.clean import clean_text
from headrace.select.duplicates.permuted_minhash import band_fingerprints, permutations, signatures
from headrace.select.duplicates.sha1 import LANES, hash_points
from headrace.select.duplicates.signatures import Signatures
from headrace.select.duplicates.step import Duplicates

PRIME, NONE = (1 << 61) - 1, (1 << 32) - 1


def sha1_hash32(text: str) -> int:
    return int.from_bytes(hashlib.sha1(text.encode()).digest()[:4], "little")


def shingles(text: str, n: int, words: bool) -> list[str]:
    """As nltk's ngrams: none for a text of fewer units than n."""
    cleaned = clean_text(text)
    if not words:
        return [cleaned[i : i + n] for i in range(len(cleaned) - n + 1)]
    units = cleaned.split()
    return [" ".join(units[i : i + n]) for i in range(len(units) - n + 1)]


def reference(text: str, n: int, words: bool, values: int) -> list[int]:
    """datasketch's MinHash in plain Python, with its wrap at 64 bits."""
    hashes = {sha1_hash32(shingle) for shingle in shingles(text, n, words)}
    a, b = permutations(values).tolist()
    return [min([((x * h + y) % (1 << 64) % PRIME) & NONE for h in hashes] + [NONE]) for x, y in zip(a, b, strict=True)]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=150))
def test_sha1(text: str) -> None:
    points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4").astype(np.uint32)
    assert hash_points(points, 0, len(points), np.empty(80, np.uint64)) == sha1_hash32(text)


def test_sha1_of_every_length() -> None:
    points = np.frombuffer(("aé語😀" * 60).encode("utf-32-le"), dtype="<u4").astype(np.uint32)
    for length in range(200):
        want = sha1_hash32(("aé語😀" * 60)[:length])
        assert hash_points(points, 0, length, np.empty(80, np.uint64)) == want


@given(
    st.lists(st.one_of(SMALL, LONG, st.text(st.sampled_from("a é語😀𐍈 "), max_size=200)), max_size=3),
    st.sampled_from([1, 2, 5, 13, 14, 40]),
    st.booleans(),
)
def test_signatures_equal_the_definition(texts: list[str], n: int, words: bool) -> None:
    got = signatures(*packed(texts), n, words, 8)
    assert got.tolist() == [reference(text, n, words, 8) for text in texts]


@pytest.mark.parametrize("units", [LANES - 1, LANES, LANES + 1, 2 * LANES + 1])
@pytest.mark.parametrize("n", [1, 13, 20])
def test_blocks_join_seamlessly(units: int, n: int) -> None:
    text = "".join(chr(97 + (i * i) % 23) if i % 7 else "é語😀"[i % 3] for i in range(units + n - 1))
    assert len(shingles(text, n, False)) == units
    assert signatures(*packed([text]), n, False, 16).tolist() == [reference(text, n, False, 16)]
    text = " ".join(text)
    assert signatures(*packed([text]), n, True, 16).tolist() == [reference(text, n, True, 16)]


def test_permutations_are_those_of_every_numpy() -> None:
    drawn = permutations(128)
    assert drawn.shape == (2, 128)
    assert hashlib.sha1(drawn.astype("<u8").tobytes()).hexdigest() == "23bfa3d21b46ae7b550f79b7a164c2bc071b03ef"


def test_bit_for_bit_datasketchs() -> None:
    datasketch = pytest.importorskip("datasketch")
    hashfunc = pytest.importorskip("datasketch.hashfunc").sha1_hash32
    texts = [*families(3, 30), "naïve café 語 " * 30, "twelve chars", "thirteen char"]
    got = signatures(*packed(texts), 13, False, 128)
    new = hasattr(datasketch.minhash, "_SCHEME_LEGACY")  # from 2.0 the scheme has a name
    for text, mine in zip(texts, got, strict=True):
        theirs = datasketch.MinHash(num_perm=128, seed=1, hashfunc=hashfunc, **({"scheme": "legacy"} if new else {}))
        for shingle in shingles(text, 13, False):
            theirs.update(shingle.encode())
        assert mine.tolist() == theirs.hashvalues.tolist()


@given(st.lists(SMALL, min_size=2, max_size=6))
def test_fingerprints_agree_where_the_keys_of_datasketch_do(texts: list[str]) -> None:
    texts = [*texts, texts[0], "", "."]
    found = band_fingerprints(*packed(texts), 3, False, 16, 5, 3)
    keys = [[tuple(reference(text, 3, False, 16)[band * 3 : band * 3 + 3]) for band in range(5)] for text in texts]
    for band in range(5):
        for i, j in pairwise(range(len(texts))):
            assert (found[i, band] == found[j, band]) == (keys[i][band] == keys[j][band])
    assert len(np.unique(found[-1])) == 5  # the number of a band is part of its fingerprint


def test_the_step_finds_what_slimpajamas_script_finds(tmp_path) -> None:
    """``generate_duplicate_pairs.py``: the first document of each band's key is paired with every later one."""
    texts = [*families(11, 60), "short", "brief", "a text of exactly one shingle"]
    near = Near(signature="datasketch", ngram=5, values=16, bands=5, rows=3)
    label = list(range(len(texts)))
    first: dict[tuple[int, ...], int] = {}
    edges = []
    for row, text in enumerate(texts):
        values = reference(text, 5, False, 16)
        for band in range(5):
            key = (band, *values[band * 3 : band * 3 + 3])
            edges.append((first.setdefault(key, row), row))
    for _ in texts:
        for a, b in edges:
            label[a] = label[b] = min(label[a], label[b])
    step = Duplicates(Signatures(graph.Given([{"text": text} for text in texts], shard_rows=20), near), False)
    assert step.params()["near"]["signature"] == "datasketch"
    artifact = graph.run_steps(tmp_path, step)["duplicates"]
    want = [x if label.count(x) > 1 else None for x in label]
    assert graph.read(artifact).column("component").to_pylist() == want
    brief = [i for i, text in enumerate(texts) if len(clean_text(text)) < 5]
    assert len({want[i] for i in brief}) == 1
    assert want[brief[0]] is not None
