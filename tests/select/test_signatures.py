"""The sidecar of signatures: what the plain functions give, the same bytes always, kept when others come."""

from __future__ import annotations

import duplicate_graph as graph
import numpy as np
import pytest
from test_duplicates import families

from headrace.documents.ids import content_id
from headrace.flow.events import read_events
from headrace.recipe.schema import Near
from headrace.select.duplicates import signatures as module
from headrace.select.duplicates.fingerprints import fingerprints
from headrace.select.duplicates.signatures import Signatures, read

NEAR = Near(ngram=5)


def step(texts: list[str], near: Near | None = NEAR, shard_rows: int = 11) -> Signatures:
    return Signatures(graph.Given([{"text": text} for text in texts], shard_rows=shard_rows), near)


@pytest.mark.parametrize("near", [NEAR, None, Near(signature="datasketch", ngram=5)])
def test_rows_are_what_the_plain_functions_give(tmp_path, monkeypatch, near) -> None:
    monkeypatch.setattr(module, "ROW_GROUP", 4)
    texts = [*families(3, 40), "", " . ", "é" * 9]
    made = graph.run_steps(tmp_path, step(texts, near))["signatures"]
    parts = [part for shard in range(len(made.shards)) for part in read(made, shard)]
    assert {len(part.high) for part in parts} <= {1, 2, 3, 4}
    ids = [f"{high:016x}{low:016x}" for p in parts for high, low in zip(p.high.tolist(), p.low.tolist(), strict=True)]
    assert ids == [content_id(text.encode()) for text in texts]
    assert [size for part in parts for size in part.bytes.tolist()] == [len(text.encode()) for text in texts]
    row = 0
    for part in parts:
        mine = [text.encode() for text in texts[row : row + len(part.high)]]
        if near is not None:
            data = np.frombuffer(b"".join(mine), dtype=np.uint8)
            which, found = fingerprints(near, data, np.cumsum([0, *map(len, mine)], dtype=np.int64))
            assert part.which.tolist() == which.tolist()
            assert np.array_equal(part.fingerprints, found)
        else:
            assert part.fingerprints.size == 0
        row += len(mine)


def test_bytes_do_not_depend_on_budget_or_retries(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "ROW_GROUP", 4)
    want = graph.run_steps(tmp_path / "a", step(families(7, 60)))["signatures"]
    for name, options in {"small": {"memory": 1 << 12}, "careful": {"careful": True}, "twice": {"repeat": 2}}.items():
        got = graph.run_steps(tmp_path / name, step(families(7, 60)), **options)["signatures"]
        assert graph.digests(got) == graph.digests(want)


def test_golden_signatures(tmp_path) -> None:
    """What is in the rows may change only together with ``Signatures.VERSION``."""
    made = graph.run_steps(tmp_path, step(["abc def ghi", "", "the quick brown fox"], shard_rows=3))["signatures"]
    [part] = read(made, 0)
    assert (Signatures.VERSION, part.which.tolist(), part.fingerprints[:, 0].tolist()) == (2, [0, 2], GOLDEN)


def test_shards_of_the_same_documents_are_kept(tmp_path) -> None:
    texts = families(7, 60)
    first = graph.run_steps(tmp_path / "a", step(texts))["signatures"]
    grown = graph.run_steps(tmp_path / "a", step([*texts[:44], "new"]))["signatures"]
    assert graph.digests(grown)[:4] == graph.digests(first)[:4]
    taken = [e["taken"] for e in read_events(tmp_path / "a") if e["event"] == "phase" and e["phase"] == "sign"]
    assert taken == [0, 4]
    assert graph.digests(grown) == graph.digests(
        graph.run_steps(tmp_path / "b", step([*texts[:44], "new"]))["signatures"]
    )


GOLDEN = [4862457270415976372, 10732388027644356721]
