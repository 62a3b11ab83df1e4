"""SHA-1 (FIPS 180-4) of many short strings at once: the hash that datasketch gives each shingle.

Strings of at most 55 bytes fit in one block; ``LANES`` of them are hashed together, each round over all lanes, so that
it vectorizes. A longer string is hashed alone, from its code points, without copying it. Only the first four bytes of a
digest are computed, as a little-endian number (datasketch's ``sha1_hash32``).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace.flow.kernels import inlined, kernel

# Strings hashed at a time: the state and schedule of this many lanes take 11 kB of the L1 cache.
LANES = 128

# Bytes of a string that fit in one block with the end marker and the length.
ONE_BLOCK = 55

_STATE = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0)
_K = (np.uint32(0x5A827999), np.uint32(0x6ED9EBA1), np.uint32(0x8F1BBCDC), np.uint32(0xCA62C1D6))
_LOW = np.uint64(0xFFFFFFFF)

Lanes = tuple[
    npt.NDArray[np.uint32],
    npt.NDArray[np.uint32],
    npt.NDArray[np.uint32],
    npt.NDArray[np.uint32],
    npt.NDArray[np.uint32],
]


@kernel
def lane_buffers() -> tuple[npt.NDArray[np.uint32], Lanes]:
    """Buffers for :func:`hash_lanes`: the schedule uint32[16, LANES], and five state words uint32[LANES]."""
    state = (
        np.empty(LANES, np.uint32),
        np.empty(LANES, np.uint32),
        np.empty(LANES, np.uint32),
        np.empty(LANES, np.uint32),
        np.empty(LANES, np.uint32),
    )
    return np.zeros((16, LANES), np.uint32), state


@kernel
def hash_lanes(schedule: npt.NDArray[np.uint32], state: Lanes, out: npt.NDArray[np.uint64]) -> None:
    """Hash one padded block in each lane.

    Args:
        schedule: uint32[16, LANES], the blocks word by word, as big-endian numbers. Overwritten.
        state: five uint32[LANES]. Overwritten.
        out: uint64[LANES]; receives the first four bytes of each digest as a little-endian number.
    """
    a, b, c, d, e = state
    for lane in range(LANES):
        a[lane], b[lane], c[lane], d[lane], e[lane] = _STATE
    for t in range(80):
        w = schedule[t & 15]
        if t >= 16:
            _expand(w, schedule[(t + 13) & 15], schedule[(t + 8) & 15], schedule[(t + 2) & 15])
        if t < 20:
            _choose(a, b, c, d, e, w)
        elif t < 40:
            _parity(a, b, c, d, e, w, _K[1])
        elif t < 60:
            _majority(a, b, c, d, e, w)
        else:
            _parity(a, b, c, d, e, w, _K[3])
        a, b, c, d, e = e, a, b, c, d
    for lane in range(LANES):
        out[lane] = _swap(np.uint64(a[lane]) + np.uint64(_STATE[0]))


@inlined
def _swap(x: np.uint64) -> np.uint64:
    """The lower four bytes of a number, reversed."""
    upper = ((x & np.uint64(0xFF)) << np.uint64(24)) | ((x & np.uint64(0xFF00)) << np.uint64(8))
    return upper | ((x >> np.uint64(8)) & np.uint64(0xFF00)) | ((x >> np.uint64(24)) & np.uint64(0xFF))


@inlined
def _rotate(x: np.uint32, by: int) -> np.uint32:
    return np.uint32(np.uint32(x << np.uint32(by)) | np.uint32(x >> np.uint32(32 - by)))


# Each round is two loops: one reads five arrays and writes one, and one works in place. A single loop would need more
# run-time alias checks than LLVM's vectorizer accepts.


@kernel
def _expand(
    w: npt.NDArray[np.uint32], x: npt.NDArray[np.uint32], y: npt.NDArray[np.uint32], z: npt.NDArray[np.uint32]
) -> None:
    for lane in range(LANES):
        w[lane] = _rotate(w[lane] ^ x[lane] ^ y[lane] ^ z[lane], 1)


@kernel
def _choose(
    a: npt.NDArray[np.uint32],
    b: npt.NDArray[np.uint32],
    c: npt.NDArray[np.uint32],
    d: npt.NDArray[np.uint32],
    e: npt.NDArray[np.uint32],
    w: npt.NDArray[np.uint32],
) -> None:
    for lane in range(LANES):
        f = d[lane] ^ (b[lane] & (c[lane] ^ d[lane]))
        e[lane] = np.uint32(e[lane] + _rotate(a[lane], 5) + f + _K[0] + w[lane])
    for lane in range(LANES):
        b[lane] = _rotate(b[lane], 30)


@kernel
def _parity(
    a: npt.NDArray[np.uint32],
    b: npt.NDArray[np.uint32],
    c: npt.NDArray[np.uint32],
    d: npt.NDArray[np.uint32],
    e: npt.NDArray[np.uint32],
    w: npt.NDArray[np.uint32],
    k: np.uint32,
) -> None:
    for lane in range(LANES):
        f = b[lane] ^ c[lane] ^ d[lane]
        e[lane] = np.uint32(e[lane] + _rotate(a[lane], 5) + f + k + w[lane])
    for lane in range(LANES):
        b[lane] = _rotate(b[lane], 30)


@kernel
def _majority(
    a: npt.NDArray[np.uint32],
    b: npt.NDArray[np.uint32],
    c: npt.NDArray[np.uint32],
    d: npt.NDArray[np.uint32],
    e: npt.NDArray[np.uint32],
    w: npt.NDArray[np.uint32],
) -> None:
    for lane in range(LANES):
        f = (b[lane] & c[lane]) | (d[lane] & (b[lane] | c[lane]))
        e[lane] = np.uint32(e[lane] + _rotate(a[lane], 5) + f + _K[2] + w[lane])
    for lane in range(LANES):
        b[lane] = _rotate(b[lane], 30)


@kernel
def hash_points(points: npt.NDArray[np.uint32], start: int, end: int, words: npt.NDArray[np.uint64]) -> np.uint64:
    """Hash one text of any length as UTF-8.

    Args:
        points: uint32[...] code points.
        start, end: the text is ``points[start:end]``.
        words: uint64[80], overwritten.

    Returns:
        The first four bytes of the digest as a little-endian number.
    """
    a, b, c, d, e = _STATE
    h = (np.uint64(a), np.uint64(b), np.uint64(c), np.uint64(d), np.uint64(e))
    words[:16] = 0
    length = 0
    for i in range(start, end):
        point = np.uint64(points[i])
        size = 1 if point < 0x80 else 2 if point < 0x800 else 3 if point < 0x10000 else 4
        for j in range(size):
            h = _append(words, length, _utf8_byte(point, size, j), h)
            length += 1
    bits = np.uint64(length) * np.uint64(8)
    h = _append(words, length, np.uint64(0x80), h)
    length += 1
    while length % 64 != 56:
        h = _append(words, length, np.uint64(0), h)
        length += 1
    for j in range(8):
        h = _append(words, length, (bits >> np.uint64(56 - 8 * j)) & np.uint64(0xFF), h)
        length += 1
    return _swap(h[0])


@inlined
def _utf8_byte(point: np.uint64, size: int, j: int) -> np.uint64:
    """Byte j of a code point's UTF-8 form, which has ``size`` bytes."""
    bits = point >> np.uint64(6 * (size - 1 - j))
    if j > 0:
        return (bits & np.uint64(0x3F)) | np.uint64(0x80)
    if size == 1:
        return bits
    return bits | (np.uint64(0xF00) >> np.uint64(size)) & np.uint64(0xFF)


@kernel
def _append(
    words: npt.NDArray[np.uint64],
    at: int,
    byte: np.uint64,
    h: tuple[np.uint64, np.uint64, np.uint64, np.uint64, np.uint64],
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64, np.uint64]:
    """Add a byte to the block; returns the new state, which changes when the block is full."""
    word = (at % 64) // 4
    words[word] = ((words[word] << np.uint64(8)) | byte) & _LOW
    if at % 64 != 63:
        return h
    for t in range(16, 80):
        x = words[t - 3] ^ words[t - 8] ^ words[t - 14] ^ words[t - 16]
        words[t] = ((x << np.uint64(1)) | (x >> np.uint64(31))) & _LOW
    a, b, c, d, e = h
    for t in range(80):
        if t < 20:
            f = d ^ (b & (c ^ d))
        elif 40 <= t < 60:
            f = (b & c) | (d & (b | c))
        else:
            f = b ^ c ^ d
        turned = ((a << np.uint64(5)) | (a >> np.uint64(27))) & _LOW
        total = (turned + f + e + np.uint64(_K[t // 20]) + words[t]) & _LOW
        a, b, c, d, e = total, a, ((b << np.uint64(30)) | (b >> np.uint64(2))) & _LOW, c, d
    return ((h[0] + a) & _LOW, (h[1] + b) & _LOW, (h[2] + c) & _LOW, (h[3] + d) & _LOW, (h[4] + e) & _LOW)
