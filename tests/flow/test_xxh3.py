"""The kernel that hashes many stretches against xxhash's own calls."""

from __future__ import annotations

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from headrace.flow import xxh3


def halves(parts: list[bytes]) -> list[list[int]]:
    return [list(divmod(xxhash.xxh3_128_intdigest(part), 1 << 64)) for part in parts]


def laid(parts: list[bytes], before: bytes = b"") -> tuple[np.ndarray, np.ndarray]:
    offsets = len(before) + np.cumsum([0, *map(len, parts)], dtype=np.int64)
    return np.frombuffer(before + b"".join(parts) + b"behind", dtype=np.uint8), offsets


# Lengths on both sides of where XXH3 changes its way: 16, 128, 240 and a block of 1,024 bytes.
@given(st.lists(st.binary(max_size=300) | st.integers(1, 5000).map(lambda n: bytes(i * i % 251 for i in range(n)))))
def test_hashes_are_those_of_xxhash(parts):
    data, offsets = laid(parts, b"before")
    assert xxh3.xxh3_128(data, offsets).tolist() == halves(parts)
    assert xxh3._called(data, offsets).tolist() == halves(parts)


def test_without_the_exported_function_python_calls(monkeypatch):
    monkeypatch.setattr(xxh3, "_exported", lambda: None)
    assert xxh3.xxh3_128(*laid([b"a", b"", b"long" * 100])).tolist() == halves([b"a", b"", b"long" * 100])


@pytest.mark.parametrize("offsets", [[0, 4], [-1, 2], [2, 1]])
def test_offsets_within_the_buffer(offsets):
    with pytest.raises(ValueError):
        xxh3.xxh3_128(np.zeros(3, dtype=np.uint8), np.array(offsets, dtype=np.int64))


def test_no_stretches():
    assert xxh3.xxh3_128(np.empty(0, dtype=np.uint8), np.zeros(1, dtype=np.int64)).shape == (0, 2)
