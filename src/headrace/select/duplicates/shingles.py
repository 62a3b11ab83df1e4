"""Shingles of a cleaned document as 64-bit hashes: every window of n characters, or of n words.

A unit (a code point, or a word) is mixed to 64 bits; a window of units u is the polynomial sum of u[j] * B**(n-1-j)
modulo 2**64 (Karp and Rabin 1987), mixed again so that all bits are good. The windows of a block are made by doubling:
hashes of windows of L units give those of 2L as H[i] * B**L + H[i + L], which, unlike the usual rolling hash, has no
dependence from one window to the next, so the vector unit does it; the values are the same either way.

A document of fewer than n units is one shingle, the whole text. One whose cleaned text is empty has none: it is never
a near-duplicate (SlimPajama makes all documents of fewer than 13 characters duplicates of each other).
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from headrace.flow.keys import mix64

# Windows hashed at a time: three buffers of this many 64-bit values stay in a first-level cache of 32 KB.
BLOCK = 1024

_BASE = np.uint64(0x9FB21C651E98DF25)  # odd and without structure (XXH3's PRIME_MX2)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio
_ONE = np.uint64(1)
_HALF = np.uint64(29)
_SPACE = np.uint32(0x20)


@numba.njit(cache=True, nogil=True)
def block_buffers(n: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """The three buffers (units, work, hashes) that :func:`next_block` needs for windows of n units: uint64 each."""
    size = BLOCK + 2 * n
    return np.empty(size, np.uint64), np.empty(size, np.uint64), np.empty(size, np.uint64)


@numba.njit(cache=True, nogil=True)
def next_block(
    points: npt.NDArray[np.uint32],
    at: int,
    end: int,
    n: int,
    words: bool,
    units: npt.NDArray[np.uint64],
    have: int,
    work: npt.NDArray[np.uint64],
    hashes: npt.NDArray[np.uint64],
) -> tuple[int, int, int]:
    """Hash the next block of a document's shingles.

    Args:
        points: uint32[...], cleaned code points; the document ends before ``end``.
        at: the first code point not yet taken (the document's start, the first time).
        n: units in a shingle.
        words: whether a unit is a word (between single spaces) or a code point.
        units, work, hashes: from :func:`block_buffers`; ``hashes`` receives the shingles.
        have: units in the block before this one, 0 the first time.

    Returns:
        ``(count, at, have)``: the number of shingles in ``hashes``, 0 when there are no more, and the state to go on.
    """
    carried = min(n - 1, have)  # windows across the seam begin in the block before
    for j in range(carried):
        units[j] = units[have - carried + j]
    first = have == 0
    at, have = _fill_units(points, at, end, words, units, carried)
    if have >= n:
        return _hash_windows(units, have, n, work, hashes), at, have
    if first and have > 0:
        return _hash_windows(units, have, have, work, hashes), at, have
    return 0, at, have


@numba.njit(cache=True, nogil=True)
def _fill_units(
    points: npt.NDArray[np.uint32], at: int, end: int, words: bool, units: npt.NDArray[np.uint64], have: int
) -> tuple[int, int]:
    """Append mixed units to a block of ``have`` until it is full or the document ends; the new ``(at, have)``."""
    if not words:
        take = min(end - at, len(units) - have)
        for j in range(take):
            u = (np.uint64(points[at + j]) + _ONE) * _SPREAD
            units[have + j] = u ^ (u >> _HALF)
        return at + take, have + take
    while at < end and have < len(units):
        h = _ONE
        while at < end and points[at] != _SPACE:
            h = h * _BASE + np.uint64(points[at])
            at += 1
        at += 1  # the space
        units[have] = mix64(h)
        have += 1
    return min(at, end), have


@numba.njit(cache=True, nogil=True)
def _hash_windows(
    units: npt.NDArray[np.uint64],
    have: int,
    n: int,
    work: npt.NDArray[np.uint64],
    hashes: npt.NDArray[np.uint64],
) -> int:
    """Hash all windows of n units of a block of ``have`` >= n into ``hashes``; their number."""
    bits = 0
    while n >> (bits + 1):
        bits += 1
    now, then = hashes, work
    for j in range(have):
        now[j] = units[j]
    length, power = 1, _BASE  # power = B**length
    for bit in range(bits - 1, -1, -1):
        for j in range(have - 2 * length + 1):
            then[j] = now[j] * power + now[j + length]
        now, then = then, now
        length, power = 2 * length, power * power
        if (n >> bit) & 1:
            for j in range(have - length):
                now[j] = now[j] * _BASE + units[j + length]
            length, power = length + 1, power * _BASE
    for j in range(have - n + 1):
        hashes[j] = mix64(now[j])
    return have - n + 1
