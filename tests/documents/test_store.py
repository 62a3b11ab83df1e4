"""Reading documents: batches within a budget, flat text buffers, any rows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.documents.store import fetch, read_batches, text_buffers
from headrace.flow.artifact import Artifact, Manifest

TEXTS = st.lists(st.text(max_size=8), max_size=10)


@given(TEXTS, st.data())
def test_text_buffers_of_slices(texts, data):
    array = pa.array(texts, pa.large_string())
    begin = data.draw(st.integers(0, len(texts)))
    length = data.draw(st.integers(0, len(texts) - begin))
    for view in (array, array.slice(begin, length)):
        flat, offsets = text_buffers(view)
        assert flat.dtype == np.uint8
        assert offsets.dtype == np.int64
        assert offsets[0] == 0
        assert offsets[-1] == len(flat)
        pieces = [bytes(flat[a:b]).decode() for a, b in pairwise(offsets)]
        assert pieces == view.to_pylist()


def test_text_buffers_do_not_copy():
    array = pa.array(["abc", "de"], pa.large_string())
    flat, _ = text_buffers(array.slice(1))
    assert flat.__array_interface__["data"][0] == array.buffers()[2].address + 3
    with pytest.raises(TypeError):
        text_buffers(pa.array(["abc"]))


@pytest.fixture
def artifact(tmp_path) -> Artifact:
    shards = []
    for shard, rows in enumerate((100, 1, 250)):
        start = sum(s["rows"] for s in shards)
        texts = [f"{start + i}:" + "x" * (i % 50) for i in range(rows)]
        table = pa.table({"text": pa.array(texts, pa.large_string()), "n": range(start, start + rows)})
        pq.write_table(table, tmp_path / f"{shard:05d}.parquet", row_group_size=30)
        shards.append({"name": f"{shard:05d}.parquet", "rows": rows, "bytes": 1, "digest": ""})
    return Artifact(tmp_path, Manifest("documents", 1, "", {}, {}, shards, [], {}))


def test_read_batches(artifact):
    found = list(read_batches(artifact.shard_path(2), ["text"], 300))
    assert all(batch.nbytes <= 300 or batch.num_rows == 1 for batch in found)
    assert found[0].schema.field("text").type == pa.large_string()
    assert [t.partition(":")[0] for b in found for t in b["text"].to_pylist()] == [str(i) for i in range(101, 351)]
    (whole, *_) = read_batches(artifact.shard_path(0), None, 1 << 20)
    assert whole.schema.names == ["text", "n"]


def test_fetch(artifact):
    rows = np.random.default_rng(0).integers(0, 351, 400)
    table = fetch(artifact, rows)
    assert table["n"].to_pylist() == rows.tolist()
    assert [t.partition(":")[0] for t in table["text"].to_pylist()] == [str(r) for r in rows]
    assert fetch(artifact, [350, 0], ["n"]).to_pylist() == [{"n": 350}, {"n": 0}]
    assert fetch(artifact, []).num_rows == 0
    for bad in ([-1], [351]):
        with pytest.raises(IndexError):
            fetch(artifact, bad)
