"""The filter before the sort: it misses no key that occurs twice, however few its slots."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.select.duplicates.repeats import Repeats
from headrace.select.duplicates.step import BAND, ID, narrow


@given(
    st.lists(st.one_of(st.integers(0, 5), st.integers(0, 2**64 - 1)), max_size=80),
    st.integers(1, 30),
    st.sampled_from([0, 16, 1 << 20]),
    st.sampled_from([narrow(BAND, 1 << 32), narrow(BAND, (1 << 32) + 1), narrow(ID, 5)]),
)
def test_no_repeated_key_is_missed(keys: list[int], chunk: int, memory: int, dtype: np.dtype) -> None:
    records = np.zeros(len(keys), dtype=dtype)
    records[dtype.names[0]], records["row"] = keys, np.arange(len(keys))
    repeats = Repeats(len(keys), memory)
    parts = [records[i : i + chunk] for i in range(0, len(keys), chunk)]
    for part in parts:
        repeats.see(part)
    picked = np.concatenate([records[:0], *map(repeats.pick, parts)])
    rows = picked["row"].tolist()
    assert rows == sorted(set(rows))
    assert (records[rows] == picked).all()
    often = Counter(keys)
    assert {row for row, key in enumerate(keys) if often[key] > 1} <= set(rows)


@pytest.mark.parametrize("memory", [1 << 13, 1 << 24])
def test_few_lone_keys_come_along(memory: int) -> None:
    records = np.zeros(100_000, dtype=narrow(BAND, 100_000))
    records["fingerprint"] = np.random.default_rng(0).integers(0, 1 << 64, len(records), dtype=np.uint64)
    repeats = Repeats(len(records), memory)
    repeats.see(records)
    share = len(repeats.pick(records)) / len(records)
    assert share < 0.23 if memory == 1 << 24 else share > 0.5


def test_rows_are_as_wide_as_need_be() -> None:
    assert narrow(BAND, 1 << 32).itemsize == 12
    assert narrow(ID, 1 << 32).itemsize == 20
    assert narrow(BAND, (1 << 32) + 1).itemsize == 16
