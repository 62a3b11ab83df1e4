"""What of a text stands word for word in documents: its longest stretches there, byte by byte.

A rolling hash (Karp and Rabin 1987) of every :data:`LEAST` bytes of a document is looked up among those of the text;
where one is there, the match is extended on the right, unless it would begin earlier. So every maximal match is found
once, at its start, and time grows with the documents, not with the text.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.flow.kernels import borrowing, kernel

LEAST = 40  # bytes: shorter ones, such as phrases and idioms of code, are everywhere
LONGEST = 1 << 18  # bytes of a text that is looked for
# Stretches of the text that begin alike and are compared with each place in a document: of more, as in a text of
# nothing but spaces, the first ones count.
SAME = 64
_RADIX = np.uint64(0x9E3779B97F4A7C15)
_SPREAD = np.uint64(0xC2B2AE3D27D4EB4F)  # xxHash64's second prime
_ONE, _SIX, _LOW = np.uint64(1), np.uint64(6), np.uint64(63)
_OLDEST = np.uint64(pow(int(_RADIX), LEAST, 1 << 64))

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


class Table(NamedTuple):
    """A text, prepared for the search.

    Attributes:
        text: uint8[n].
        hashes: uint64[w], of its windows of :data:`LEAST` bytes, ascending.
        places: int64[w], where each of them begins.
        marks: uint64[2^k]: a bitmap of the hashes; most places in documents end here.
        shift: of a spread hash to its bit.
    """

    text: Bytes
    hashes: npt.NDArray[np.uint64]
    places: Ints
    marks: npt.NDArray[np.uint64]
    shift: np.uint64


class Stretches(NamedTuple):
    """Maximal matches, in the order of documents; int64[m] each.

    Attributes:
        document: the document's index in the buffer.
        start: the byte of the text where the match begins.
        at: the byte of the document where it begins.
        length: in bytes.
    """

    document: Ints
    start: Ints
    at: Ints
    length: Ints


def table_of(text: bytes) -> Table:
    """Prepare a text, of at most :data:`LONGEST` bytes."""
    data = np.frombuffer(text, dtype=np.uint8)
    count = max(0, len(data) - LEAST + 1)
    hashes = np.empty(count, dtype=np.uint64)
    if count:
        _windows(data, hashes, _OLDEST)
    bits = max(16, (16 * max(count, 1) - 1).bit_length())  # one in sixteen bits is set at most
    marks = np.zeros(1 << (bits - 6), dtype=np.uint64)
    shift = np.uint64(64 - bits)
    spread = (hashes * _SPREAD) >> shift
    np.bitwise_or.at(marks, (spread >> _SIX).astype(np.int64), _ONE << (spread & _LOW))
    order = np.argsort(hashes, kind="stable")
    return Table(data, hashes[order], order.astype(np.int64), marks, shift)


def find_stretches(data: Bytes, offsets: Ints, table: Table) -> Stretches:
    """All maximal matches of at least :data:`LEAST` bytes.

    Args:
        data: uint8[n_bytes].
        offsets: int64[n_docs + 1] of bytes into ``data``.
        table: the text.
    """
    room = 1024
    while True:
        out = np.empty((4, room), dtype=np.int64)
        count = _find(data, offsets, table.text, table.hashes, table.places, table.marks, table.shift, _OLDEST, out)
        if count <= room:
            return Stretches(*out[:, :count])
        room = count


@kernel
def _windows(data: Bytes, hashes: npt.NDArray[np.uint64], oldest: np.uint64) -> None:
    """The rolling hash of each window."""
    value = np.uint64(0)
    for i in range(len(data)):
        value = value * _RADIX + np.uint64(data[i]) + _ONE
        if i >= LEAST:
            value -= (np.uint64(data[i - LEAST]) + _ONE) * oldest
        if i >= LEAST - 1:
            hashes[i - LEAST + 1] = value


@kernel
def _find(
    data: Bytes,
    offsets: Ints,
    text: Bytes,
    hashes: npt.NDArray[np.uint64],
    places: Ints,
    marks: npt.NDArray[np.uint64],
    shift: np.uint64,
    oldest: np.uint64,
    out: Ints,
) -> int:
    """Write matches to ``out``: [4, room] while there is room; returns their number."""
    count = 0
    for d in range(len(offsets) - 1):
        begin, end = offsets[d], offsets[d + 1]
        value = np.uint64(0)
        for i in range(begin, end):
            value = value * _RADIX + np.uint64(data[i]) + _ONE
            if i >= begin + LEAST:
                value -= (np.uint64(data[i - LEAST]) + _ONE) * oldest
            if i < begin + LEAST - 1:
                continue
            place = (value * _SPREAD) >> shift
            if not (marks[place >> _SIX] >> (place & _LOW)) & _ONE:
                continue
            first = i - LEAST + 1
            low = _lowest(hashes, value)
            for k in range(low, min(low + SAME, len(hashes))):
                if hashes[k] != value:
                    break
                start = places[k]
                # Not the beginning of its match.
                if start > 0 and first > begin and text[start - 1] == data[first - 1]:
                    continue
                length = _same(data, first, end, text, start)
                if length >= LEAST:
                    if count < out.shape[1]:
                        out[0, count], out[1, count] = d, start
                        out[2, count], out[3, count] = first - begin, length
                    count += 1
    return count


@borrowing
def _lowest(hashes: npt.NDArray[np.uint64], value: np.uint64) -> int:
    low, high = 0, len(hashes)
    while low < high:
        middle = (low + high) // 2
        if hashes[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@borrowing
def _same(data: Bytes, i: int, end: int, text: Bytes, start: int) -> int:
    """How many bytes are equal from two places on."""
    length = 0
    while i + length < end and start + length < len(text) and data[i + length] == text[start + length]:
        length += 1
    return length
