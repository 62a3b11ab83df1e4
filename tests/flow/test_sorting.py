"""Sorting of records against NumPy's stable sorts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.flow.radix import sort_words
from headrace.flow.sorting import order_by, sort_by

KEYS = st.one_of(
    st.integers(0, 3),
    st.integers(0, (1 << 64) - 1),
    st.integers(0, 63).map(lambda bit: 1 << bit),
    st.integers(0, 200).map(lambda low: (1 << 63) + low),
)


def in_order(words: np.ndarray, columns: tuple[int, ...]) -> np.ndarray:
    return words[np.lexsort([words[:, c] for c in reversed(columns)])]


@given(
    st.lists(st.tuples(KEYS, KEYS), max_size=300),
    st.sampled_from([(0,), (1,), (0, 1), (1, 0), (0, 0)]),
    st.integers(0, 2),
)
def test_words(pairs: list[tuple[int, int]], columns: tuple[int, ...], more: int) -> None:
    words = np.zeros((len(pairs), 3 + more), dtype=np.uint64)
    words[:, :2] = np.array(pairs, dtype=np.uint64).reshape(-1, 2)
    words[:, 2] = np.arange(len(pairs))  # tells records with equal keys apart
    want = in_order(words, columns)
    assert (sort_words(words, columns) == want).all()


@pytest.mark.parametrize("n", [0, 1, 2, 16, 17, 18, 1000, 40_000, 200_000])
@pytest.mark.parametrize("kind", ["random", "few", "ascending", "descending", "skewed", "high"])
def test_shapes(n: int, kind: str) -> None:
    rng = np.random.default_rng(n)
    key = {
        "random": lambda: rng.integers(0, 1 << 64, n, dtype=np.uint64),
        "few": lambda: rng.integers(0, 5, n, dtype=np.uint64) << np.uint64(60),
        "ascending": lambda: np.arange(n, dtype=np.uint64),
        "descending": lambda: np.arange(n, dtype=np.uint64)[::-1] << np.uint64(13),
        # Every pass of a radix sort over this one moves all records but a few to one bucket.
        "skewed": lambda: np.uint64(1) << (np.arange(n, dtype=np.uint64) % np.uint64(64)),
        "high": lambda: np.full(n, 1 << 63, dtype=np.uint64) | rng.integers(0, 1 << 20, n, dtype=np.uint64),
    }[kind]()
    words = np.stack([key, rng.integers(0, 1 << 64, n, dtype=np.uint64)], axis=1)
    for columns in ((0,), (0, 1)):
        assert (sort_words(words.copy(), columns) == in_order(words, columns)).all()


MIXED = np.dtype([("key", "<u8"), ("small", "<i4"), ("tiny", "u1"), ("place", "<u4")])
WORDS = np.dtype([("a", "<u8"), ("b", "<i8"), ("c", "<u8"), ("place", "<u8")])


@given(
    st.lists(st.tuples(KEYS, st.integers(-3, 3), st.integers(0, 3)), max_size=120),
    st.sampled_from([("key",), ("small",), ("key", "small"), ("small", "tiny", "key"), ("tiny", "key", "small")]),
)
def test_mixed_fields(rows: list[tuple[int, int, int]], by: tuple[str, ...]) -> None:
    records = np.array([(*row, i) for i, row in enumerate(rows)], dtype=MIXED)
    want = np.lexsort([records[field] for field in reversed(by)])
    assert order_by(records, by).tolist() == want.tolist()
    assert (sort_by(records.copy(), by) == records[want]).all()


@given(
    st.lists(st.tuples(KEYS, st.integers(-3, 3), KEYS), max_size=120),
    st.sampled_from([("a",), ("c", "a"), ("a", "c"), ("b",), ("a", "b"), ("b", "c")]),
)
def test_fields_of_words(rows: list[tuple[int, int, int]], by: tuple[str, ...]) -> None:
    records = np.array([(*row, i) for i, row in enumerate(rows)], dtype=WORDS)
    want = records[np.lexsort([records[field] for field in reversed(by)])]
    assert (sort_by(records.copy(), by) == want).all()
    records.flags.writeable = False
    assert (sort_by(records, by) == want).all()
