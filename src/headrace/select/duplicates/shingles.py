"""Shingles of a cleaned document as 64-bit hashes: every window of n characters, or n words.

A unit is a code point or a word. A code point below U+00FF is one byte; others, and words, are mixed to 64 bits. Eight
units make a pack: the xor of each unit k rotated by 8 k bits. For eight bytes that is the bytes themselves, for mixed
units a cyclic polynomial (Cohen 1997, "Recursive hashing functions for n-grams"). A window is the packs of its units 0
to 7, 8 to 15 and so on, the last pack ending with the window, chained by multiplication (Lemire and Kaser 2014,
1202.4961) and mixed so that all bits are good: a window of 13 characters takes two packs. Packs are built by doubling,
from pairs to fours to eights. Unlike in the usual rolling hash, no window depends on the one before, so everything
vectorizes.

A document with fewer than n units is one shingle, its whole text, with its length mixed in. One whose cleaned text is
empty has none and is never a near-duplicate (in SlimPajama, all documents shorter than 13 characters are duplicates of
each other).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace.flow.kernels import kernel
from headrace.flow.keys import mix64

# Windows hashed at a time: four buffers of this many 64-bit values fit in an L1 cache of 48 kB.
BLOCK = 1024

_PACK = 8  # units
_BASE = np.uint64(0x9FB21C651E98DF25)  # odd and without structure (XXH3's PRIME_MX2)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio
_ONE = np.uint64(1)
_FOLD = np.uint64(32)
_BYTE = np.uint64(0xFF)
_WIDTH = np.uint64(64)
_SPACE = np.uint32(0x20)


@kernel
def block_buffers(n: int) -> npt.NDArray[np.uint64]:
    """The buffers that :func:`next_block` needs for windows of n units: uint64[4, ...]."""
    return np.empty((4, BLOCK + 2 * n), np.uint64)


@kernel
def next_block(
    points: npt.NDArray[np.uint32],
    at: int,
    end: int,
    n: int,
    words: bool,
    buffers: npt.NDArray[np.uint64],
    have: int,
) -> tuple[int, int, int]:
    """Hash the next block of a document's shingles.

    Args:
        points: uint32[...], cleaned code points; the document ends at ``end``.
        at: the first code point not yet consumed (initially the document's start).
        n: units in a shingle.
        words: whether a unit is a word (separated by single spaces) rather than a code point.
        buffers: from :func:`block_buffers`; its last row receives the shingles.
        have: units in the previous block, initially 0.

    Returns:
        ``(count, at, have)``: the number of shingles in ``buffers[-1]``, 0 if there are no more, and the state for the
        next call.
    """
    units = buffers[0]
    carried = min(n - 1, have)  # windows across the boundary start in the previous block
    for j in range(carried):
        units[j] = units[have - carried + j]
    first = have == 0
    if words:
        at, have = _word_units(points, at, end, units, carried)
    else:
        at, have = _character_units(points, at, end, units, carried)
    if have >= n:
        _hash_windows(buffers, have, n)
        return have - n + 1, at, have
    if first and have > 0:
        _hash_windows(buffers, have, have)
        # Windows of one length only are told apart: nine equal units would be ten.
        buffers[3][0] = mix64(buffers[3][0] + np.uint64(have))
        return 1, at, have
    return 0, at, have


@kernel
def _character_units(
    points: npt.NDArray[np.uint32], at: int, end: int, units: npt.NDArray[np.uint64], have: int
) -> tuple[int, int]:
    """Append code points as units to a block of ``have`` until it is full or the document ends; returns the new
    state."""
    take = min(end - at, len(units) - have)
    source, target = points[at : at + take], units[have : have + take]
    widest = np.uint32(0)
    for j in range(take):
        widest |= source[j]
        target[j] = np.uint64(source[j]) + _ONE
    if widest >= _BYTE:
        for j in range(take):
            if target[j] > _BYTE:
                target[j] = mix64(target[j] * _SPREAD)
    return at + take, have + take


@kernel
def _word_units(
    points: npt.NDArray[np.uint32], at: int, end: int, units: npt.NDArray[np.uint64], have: int
) -> tuple[int, int]:
    """Append words as units to a block of ``have`` until it is full or the document ends; returns the new state."""
    while at < end and have < len(units):
        h = _ONE
        while at < end and points[at] != _SPACE:
            h = h * _BASE + np.uint64(points[at])
            at += 1
        at += 1  # the space
        units[have] = mix64(h)
        have += 1
    return min(at, end), have


@kernel
def _xor_rotated(
    left: npt.NDArray[np.uint64], right: npt.NDArray[np.uint64], bits: int, out: npt.NDArray[np.uint64]
) -> None:
    """``left ^ rotated(right, bits)`` into ``out``, all of equal length; 0 < bits < 64."""
    up, down = np.uint64(bits), _WIDTH - np.uint64(bits)
    for j in range(len(out)):
        out[j] = left[j] ^ ((right[j] << up) | (right[j] >> down))


@kernel
def _hash_windows(buffers: npt.NDArray[np.uint64], have: int, n: int) -> None:
    """Hash all windows of n units in a block of ``have`` >= n units, from ``buffers[0]`` into ``buffers[3]``."""
    units, packs, work, hashes = buffers[0], buffers[1], buffers[2], buffers[3]
    count = have - n + 1
    if n < _PACK:
        hashes[:count] = units[:count]
        for k in range(1, n):
            _xor_rotated(hashes[:count], units[k : k + count], 8 * k, hashes[:count])
    else:
        _xor_rotated(units[: have - 1], units[1:have], 8, packs[: have - 1])
        _xor_rotated(packs[: have - 3], packs[2 : have - 1], 16, work[: have - 3])
        _xor_rotated(work[: have - 7], work[4 : have - 3], 32, packs[: have - 7])
        hashes[:count] = packs[:count]
        for k in range(_PACK, n, _PACK):
            first = min(k, n - _PACK)
            following = packs[first : first + count]
            for j in range(count):
                h = hashes[j] * _BASE
                hashes[j] = (h ^ (h >> _FOLD)) + following[j]
    for j in range(count):
        hashes[j] = mix64(hashes[j])
