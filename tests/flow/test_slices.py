"""Copies of stretches, against plain slices."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.flow.slices import copy, gather


@given(st.binary(max_size=40), st.data())
def test_copy_equals_slice_assignment(raw: bytes, data: st.DataObject) -> None:
    source, out = np.frombuffer(raw, dtype=np.uint8), np.zeros(50, dtype=np.uint8)
    expected = out.copy()
    moves = data.draw(st.lists(st.tuples(st.integers(0, len(raw)), st.integers(0, len(raw)), st.integers(0, 10))))
    moves = [(a, min(n, len(raw) - a), to) for a, n, to in moves]
    for a, n, to in moves:
        expected[to : to + n] = source[a : a + n]
    starts, lengths, at = (np.array([move[i] for move in moves], dtype=np.int64) for i in range(3))
    copy(source, starts, lengths, out, at)
    assert (out == expected).all()


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=30))
def test_gather_equals_slicing(pairs: list[tuple[int, int]]) -> None:
    data = np.arange(60)
    starts = np.array([p[0] for p in pairs], dtype=np.int64)
    lengths = np.array([p[1] for p in pairs], dtype=np.int64)
    want = [x for start, length in pairs for x in range(start, start + length)]
    assert gather(data, starts, lengths).tolist() == want
