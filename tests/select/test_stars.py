"""Star edges by a table of keys: those that sorting gives, in the order of rows, whatever the chunks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.select.duplicates import step
from headrace.select.duplicates.stars import Stars
from headrace.select.duplicates.step import BAND, ID, narrow

KEY = st.one_of(st.integers(0, 3), st.integers(0, 2**64 - 1))


@given(
    st.lists(st.tuples(KEY, st.integers(0, 1)), max_size=80),
    st.integers(1, 30),
    st.sampled_from([narrow(BAND, 1 << 32), narrow(BAND, 1 << 33), narrow(ID, 1 << 32), narrow(ID, 1 << 33)]),
)
def test_edges_go_to_the_first_of_a_key(keys: list[tuple[int, int]], chunk: int, dtype: np.dtype) -> None:
    records = np.zeros(len(keys), dtype=dtype)
    begin = 0 if dtype["row"].itemsize == 4 else (1 << 33) - 1000
    for row, key in enumerate(keys):
        for name, half in zip(dtype.names[:-1], key, strict=False):
            records[row][name] = half
        records[row]["row"] = begin + row
    stars = Stars(len(keys), dtype)
    got = [edge for i in range(0, len(keys), chunk) for edge in stars.edges(records[i : i + chunk]).tolist()]
    told = [key[: len(dtype.names) - 1] for key in keys]
    want = [[begin + told.index(key), begin + row] for row, key in enumerate(told) if told.index(key) != row]
    assert got == want


@pytest.mark.parametrize("share", ["HELD_SHARE", "TABLE_SHARE"])
def test_both_ways_give_the_same_duplicates(tmp_path, monkeypatch, share: str) -> None:
    import duplicate_graph as graph
    from test_duplicates import NEAR, families

    texts = families(3, 60)
    made = step.Duplicates(graph.Given([{"text": text} for text in texts], shard_rows=13), NEAR, True)
    table = graph.run_steps(tmp_path / "table", made)["duplicates"]
    monkeypatch.setattr(step, share, 0.0)
    other = graph.run_steps(tmp_path / "other", made)["duplicates"]
    assert graph.digests(table) == graph.digests(other)
    assert table.manifest == other.manifest
