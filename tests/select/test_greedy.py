"""The greedy rule against a plain sequential implementation, whatever the blocks and the order of arrival."""

from __future__ import annotations

import hashlib
import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_shingles_minhash import fingerprints, shingle_hashes, sketch

from headrace.recipe.schema import Near
from headrace.select.duplicates.jaccard import text_jaccard
from headrace.select.verdicts import verification
from headrace.select.verdicts.greedy import decide_greedily
from headrace.select.verdicts.representatives import MEMBER
from headrace.select.verdicts.verification import TEXT
from quick import examples

# Many bands of one value: nearly every document of a component is a candidate of every other.
LOOSE = Near(unit="characters", ngram=3, values=12, bands=12, rows=1, threshold=0.6, verify=True)
# Few bands: many are in one component without being candidates.
STRICT = Near(unit="words", ngram=2, values=16, bands=3, rows=4, threshold=0.5, verify=True)
# Documents of fewer than n units share a band there although their similarity is 0.
EMPTY_ALIKE = Near(
    unit="words", ngram=2, values=16, bands=3, rows=4, threshold=0.5, verify=True, signature="datasketch"
)


def corpus(seed: int, components: int) -> tuple[np.ndarray, list[str]]:
    """MEMBER[n] of documents in components of many degrees of likeness, with exact copies, and their texts."""
    rng = random.Random(seed)
    records, texts = [], []
    for component in range(components):
        page = [rng.choice("abcdefghij") * rng.choice([1, 2, 4]) for _ in range(rng.choice([0, 2, 8, 30]))]
        for _ in range(rng.choice([1, 2, 5, 15])):
            if rng.random() < 0.3:
                page = [rng.choice("abcdefghij") if rng.random() < 0.2 else word for word in page]
            text = " ".join([word if rng.random() < 0.95 else "Zé" for word in page]) or rng.choice(["", "!"])
            texts.append(text)
            row = (component, component, len(texts) * 3, 0, hash_of(text), len(text.encode()), hash_of(text) % 5, 1, 0)
            records.append((*row, rng.randrange(2), rng.randrange(2), 0, rng.random() < 0.1, 1))
    return np.array(records, dtype=MEMBER), texts


def hash_of(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def bands_of(text: str, near: Near) -> set[tuple[int, int]]:
    hashes = shingle_hashes(text, near.ngram, near.unit == "words")
    return set(enumerate(fingerprints(sketch(hashes, near.values), near.bands, near.rows))) if hashes else set()


def reference(records: np.ndarray, texts: list[str], near: Near) -> dict[int, tuple[int, bool, float]]:
    """Row -> (row of the document kept instead, whether it is an exact copy, similarity), one after the other."""
    bands = [bands_of(text, near) for text in texts]
    order = [i for i in range(len(records)) if not records["barred"][i]]
    order.sort(
        key=lambda i: tuple(int(x) for x in (records[i]["priority"], -records[i]["bytes"], *records[i][["key", "row"]]))
    )
    removed, kept = {}, []
    for i in order:
        for k in kept:
            if records["component"][i] != records["component"][k]:
                continue
            exact = texts[i] == texts[k]
            if exact or bands[i] & bands[k]:
                jaccard = 1.0 if exact else text_jaccard(texts[i], texts[k], near.ngram, near.unit)
                if jaccard >= near.threshold:
                    removed[int(records["row"][i])] = (int(records["row"][k]), exact, jaccard)
                    break
        else:
            kept.append(i)
    return removed


def decided(records: np.ndarray, texts: list[str], near: Near, block_bytes: int, seed: int = 0) -> dict:
    rng = random.Random(seed)
    order = list(range(len(records)))
    rng.shuffle(order)
    cuts = sorted([0, len(order), *(rng.randrange(len(order) + 1) for _ in range(3))])
    runs = [order[a:b] for a, b in itertools.pairwise(cuts)]

    def members():
        for run in runs:
            yield records[run], np.full(len(run), ord("f"), dtype=np.uint8)

    def stream():
        for run in runs:
            free = [i for i in run if not records["barred"][i]]
            raw = [texts[i].encode() for i in free]
            told = np.array([(records["row"][i], len(r)) for i, r in zip(free, raw, strict=True)], dtype=TEXT)
            yield told, np.frombuffer(b"".join(raw), dtype=np.uint8)

    found = decide_greedily(members, stream, near, block_bytes)
    removed, rows = found.removed, found.kept.records["row"]
    assert (np.diff(removed.row.astype(np.int64)) > 0).all()
    assert set(removed.representative.tolist()) == set(range(len(rows)))
    source = dict(zip(records["row"].tolist(), records["source"].tolist(), strict=True))
    assert removed.source.tolist() == [source[row] for row in removed.row.tolist()]
    kept = rows[removed.representative]
    columns = (removed.row.tolist(), kept.tolist(), removed.exact.tolist(), found.jaccard.tolist())
    return {row: told for row, *told in zip(*columns, strict=True)}


@pytest.mark.parametrize("near", [LOOSE, STRICT], ids=["loose", "strict"])
@settings(max_examples=examples(60))
@given(st.integers(0, 1 << 30), st.integers(1, 8), st.sampled_from([1, 100, 700, 3000, 1 << 20]))
def test_equal_to_the_sequential_rule(near: Near, seed: int, components: int, block_bytes: int) -> None:
    records, texts = corpus(seed, components)
    got = decided(records, texts, near, block_bytes, seed)
    assert {row: tuple(told) for row, told in got.items()} == reference(records, texts, near)


def test_blocks_pieces_and_order_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    records, texts = corpus(5, 30)
    for near in (LOOSE, STRICT, EMPTY_ALIKE):
        want = decided(records, texts, near, 1 << 30)
        inexact = [told[2] for told in want.values() if not told[1]]
        assert inexact
        assert min(inexact) >= near.threshold
        assert len({told[0] for told in want.values()}) > 30  # more than one is kept of some components
        monkeypatch.setattr(verification, "PIECE_BYTES", 64)
        for block_bytes, seed in ((1, 1), (500, 2), (5000, 3)):
            assert decided(records, texts, near, block_bytes, seed) == want


def test_a_missing_text_is_an_error() -> None:
    records, texts = corpus(5, 30)
    with pytest.raises(ValueError, match="have arrived"):
        decide_greedily(lambda: iter([(records, np.full(len(texts), 102, np.uint8))]), lambda: iter(()), LOOSE, 100)


def test_nothing_to_decide() -> None:
    assert not len(decide_greedily(lambda: iter(()), lambda: iter(()), LOOSE, 100).removed.row)
