"""The duplicates step against a plain implementation that compares every document with every other."""

from __future__ import annotations

import random
import unicodedata

import duplicate_graph as graph
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_shingles_minhash import fingerprints, shingle_hashes, sketch

from headrace.errors import UserError
from headrace.recipe.schema import Near
from headrace.select.duplicates import step as module
from headrace.select.duplicates.signatures import Signatures
from headrace.select.duplicates.step import Duplicates, high_bits, partitions

NEAR = Near(unit="words", ngram=2, values=16, bands=5, rows=3)

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "others", "look", "on"]


def families(seed: int, count: int) -> list[str]:
    """Texts, some exact and some near copies of each other, some empty when cleaned, in a mixed order."""
    rng = random.Random(seed)
    texts = []
    for _ in range(count):
        base = rng.choices(WORDS, k=rng.choice([0, 1, 3, 30]))
        for _ in range(rng.choice([1, 1, 2, 4])):
            copy = [w for w in base if rng.random() > 0.04]
            texts.append(rng.choice([" ", "\n"]).join(copy) or rng.choice(["", "...", " ! "]))
    rng.shuffle(texts)
    return texts


def reference(texts: list[str], near: Near | None, exact: bool) -> tuple[list[int], int]:
    """The smallest row of each row's component and the number of star edges, by the definitions, in plain Python."""
    edges = []
    if near is not None:
        bands, rows = (near.bands, near.rows) if near.bands and near.rows else (9, 13)
        buckets: dict[tuple[int, int], list[int]] = {}
        for row, text in enumerate(texts):
            hashes = shingle_hashes(text, near.ngram, near.unit == "words")
            if hashes:
                for band in enumerate(fingerprints(sketch(hashes, near.values), bands, rows)):
                    buckets.setdefault(band, []).append(row)
        edges += [(members[0], other) for members in buckets.values() for other in members[1:]]
    pairs = len(edges)
    if exact:
        edges += [(texts.index(text), row) for row, text in enumerate(texts)]
    label = list(range(len(texts)))
    for _ in range(len(texts)):
        for a, b in edges:
            label[a] = label[b] = min(label[a], label[b])
    return label, pairs


def check(table, texts: list[str], near: Near | None, exact: bool, counts: dict) -> None:
    label, pairs = reference(texts, near, exact)
    size = [label.count(x) for x in label]
    assert table.column("component").to_pylist() == [x if n > 1 else None for x, n in zip(label, size, strict=True)]
    assert table.column("size").to_pylist() == size
    first = [texts.index(text) for text in texts]
    copies = [x if x != row and exact else None for row, x in enumerate(first)]
    assert table.column("exact_of").to_pylist() == copies
    assert table.column("bytes").to_pylist() == [len(text.encode()) for text in texts]
    assert counts["candidate_pairs"] == pairs
    assert counts["components"] == len({x for x, n in zip(label, size, strict=True) if n > 1})
    assert counts["members"] == sum(n > 1 for n in size)
    assert counts["largest"] == max([n for n in size if n > 1], default=0)
    assert counts["exact_copies"] == sum(x is not None for x in copies)


@settings(max_examples=8)
@given(st.integers(0, 1 << 30), st.integers(1, 25), st.booleans(), st.booleans())
def test_components_equal_a_plain_implementation(tmp_path_factory, seed, count, near, exact) -> None:
    texts = families(seed, count)
    documents = graph.Given([{"text": t} for t in texts], shard_rows=20)
    step = Duplicates(Signatures(documents, NEAR if near else None), exact)
    artifact = graph.run_steps(tmp_path_factory.mktemp("run"), step)["duplicates"]
    check(graph.read(artifact), texts, NEAR if near else None, exact, artifact.manifest.counts)


def test_bytes_do_not_depend_on_budget_retries_or_order(tmp_path, monkeypatch) -> None:
    texts = families(7, 60)
    step = Duplicates(Signatures(graph.Given([{"text": t} for t in texts], shard_rows=11), NEAR), True)
    want = graph.run_steps(tmp_path / "a", step)["duplicates"]
    for name, options in {
        "small": {"memory": 1 << 12},
        "careful": {"careful": True},
        "repeated": {"repeat": 2},
    }.items():
        got = graph.run_steps(tmp_path / name, step, **options)["duplicates"]
        assert graph.digests(got) == graph.digests(want)
    monkeypatch.setattr(module, "PARTITION_BYTES", 512)
    assert partitions(len(texts), module.ID) > 4
    got = graph.run_steps(tmp_path / "partitioned", step)["duplicates"]
    assert graph.digests(got) == graph.digests(want)
    check(graph.read(want), texts, NEAR, True, want.manifest.counts)


def test_no_documents(tmp_path) -> None:
    artifact = graph.run_steps(tmp_path, Duplicates(Signatures(graph.Given([]), Near()), True))["duplicates"]
    assert artifact.rows == 0
    assert artifact.manifest.counts["components"] == 0


def test_parameters_are_what_decides_the_bytes() -> None:
    documents = graph.Given([{"text": "a"}])
    step = Duplicates(Signatures(documents, Near()), True)
    assert step.signatures.bands() == (9, 13)
    assert step.params()["near"] == {
        "unit": "characters",
        "ngram": 13,
        "values": 128,
        "bands": 9,
        "rows": 13,
        "unicode": unicodedata.unidata_version,
    }
    assert Duplicates(Signatures(documents, Near(bands=9, rows=13, threshold=0.7)), True).identity == step.identity
    assert Duplicates(Signatures(documents, Near(verify=True)), True).identity == step.identity
    assert Duplicates(Signatures(documents, Near(threshold=0.7)), True).identity != step.identity
    assert Duplicates(Signatures(documents, Near()), False).identity != step.identity
    with pytest.raises(UserError, match="too long"):
        Duplicates(Signatures(documents, Near(values=1 << 16)), True)


def test_partitions() -> None:
    assert partitions(0, module.BAND) == 1
    assert partitions((64 << 20) // 16, module.BAND) == 1
    assert partitions((64 << 20) // 16 + 1, module.BAND) == 2
    keys = np.array([0, 1 << 62, 1 << 63, (1 << 64) - 1], dtype=np.uint64)
    assert high_bits(keys, 1).tolist() == [0, 0, 0, 0]
    assert high_bits(keys, 4).tolist() == [0, 1, 2, 3]
