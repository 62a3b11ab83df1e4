"""The external sort against NumPy's stable sort, under budgets far below the data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.flow.external_sort import ExternalSort
from quick import examples

RECORD = np.dtype([("a", "<u8"), ("b", "<u8"), ("place", "<u4")])


def records(n: int, keys: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    out = np.empty(n, dtype=RECORD)
    out["a"], out["b"], out["place"] = rng.integers(0, keys, n), rng.integers(0, 5, n), np.arange(n)
    return out


def through(folder, all_records: np.ndarray, by: tuple[str, ...], memory: int, piece: int, **more) -> list[np.ndarray]:
    sort = ExternalSort(folder, RECORD, by, memory, **more)
    for start in range(0, len(all_records), piece):
        sort.add(all_records[start : start + piece])
    return list(sort.chunks())


@settings(max_examples=examples(25))
@given(
    st.integers(0, 60_000),
    st.sampled_from([1, 7, 5000, 1 << 60]),
    st.sampled_from([("a",), ("a", "b"), ("b", "a")]),
    st.sampled_from([1000, 4096, 100_000]),
    st.integers(2, 5),
)
def test_any_budget_gives_the_stable_order(tmp_path, n, keys, by, piece, most_runs) -> None:
    everything = records(n, keys, n)
    want = everything[np.lexsort([everything[field] for field in reversed(by)])]
    for options in ({}, {"most_runs": most_runs}):
        chunks = through(tmp_path, everything, by, 0, piece, **options)
        assert (np.concatenate([everything[:0], *chunks]) == want).all()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("most_runs", [4, 256])
def test_chunks_stay_within_the_budget(tmp_path, most_runs: int) -> None:
    everything = records(200_000, 1 << 50, 0)
    chunks = through(tmp_path, everything, ("a",), 0, 1 << 14, most_runs=most_runs)
    assert max(map(len, chunks)) <= 2 * (1 << 12)
    assert (np.concatenate(chunks)["place"] == np.argsort(everything["a"], kind="stable")).all()
