"""Union-find and star edges against plain implementations."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.select.duplicates.components import flatten, row_dtype, spread_sizes, star_edges, union


def components(rows: int, pairs: list[tuple[int, int]]) -> list[int]:
    label = list(range(rows))
    changed = True
    while changed:
        changed = False
        for a, b in pairs:
            low = min(label[a], label[b])
            changed |= label[a] != low or label[b] != low
            label[a] = label[b] = low
    return label


@given(st.data(), st.integers(1, 40))
def test_components(data: st.DataObject, rows: int) -> None:
    pairs = data.draw(st.lists(st.tuples(st.integers(0, rows - 1), st.integers(0, rows - 1)), max_size=60))
    want = components(rows, pairs)
    for dtype in ("<u4", "<u8"):
        parent, sizes = np.arange(rows, dtype=dtype), np.zeros(rows, dtype=dtype)
        joined = union(parent, np.array(pairs, dtype=np.uint64).reshape(-1, 2))
        counts = flatten(parent, sizes)
        assert parent.tolist() == want
        assert joined == rows - len(set(want))
        of = [want.count(row) if want[row] == row else 0 for row in range(rows)]
        assert sizes.tolist() == of
        many = [n for n in of if n > 1]
        spread_sizes(parent, sizes)
        assert sizes.tolist() == [want.count(label) for label in want]
        assert counts.tolist() == [len(many), sum(many), max(many, default=0)]


def test_a_chain_in_the_worst_order() -> None:
    rows = 20_000
    pairs = np.stack([np.arange(rows - 1), np.arange(1, rows)], axis=1)[::-1].astype(np.uint64)
    parent, sizes = np.arange(rows, dtype="<u4"), np.zeros(rows, dtype="<u4")
    assert union(parent, pairs) == rows - 1
    assert flatten(parent, sizes).tolist() == [1, rows, rows]
    assert not parent.any()


def test_row_dtype() -> None:
    assert row_dtype(1 << 32) == np.uint32
    assert row_dtype((1 << 32) + 1) == np.uint64


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 9)), max_size=60), st.integers(1, 20))
def test_stars_do_not_depend_on_chunks(records: list[tuple[int, int, int]], chunk: int) -> None:
    records = sorted(records)
    array = np.array(records, dtype=np.uint64).reshape(-1, 3)
    state, got = np.zeros(4, dtype=np.uint64), []
    for i in range(0, len(array), chunk):
        part = array[i : i + chunk]
        edges = np.empty((len(part), 2), dtype=np.uint64)
        high, low, rows = (np.ascontiguousarray(part[:, c]) for c in range(3))
        got += edges[: star_edges(high, low, rows, np.uint64(1 << 62), state, edges)].tolist()
    want = []
    for high, low, row in records:
        smallest = min(r for h, lo, r in records if (h, lo) == (high, low))
        if row != smallest:
            want.append([smallest, row])
    assert got == want
