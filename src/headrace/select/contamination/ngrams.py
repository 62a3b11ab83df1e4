"""Hash a text's n-grams, look them up in a sorted index, and confirm matches against the text itself.

A unit is a word or a code token:

- words: the text cleaned as in SlimPajama (lower case, without ASCII punctuation), split at whitespace; lower case is
  taken character by character, so that a final sigma needs no context;
- code: runs of letters, digits and ``_``, and every other character by itself except whitespace; case-sensitive.

The hash of an n-gram is a polynomial in the hashes of its units (Rabin and Karp 1987). A hash match is never trusted:
the units are read again and compared, code point by code point.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.flow.kernels import borrowing, inlined, kernel
from headrace.select import code_points
from headrace.select.code_points import ALPHANUMERIC, DOT_ABOVE, PUNCTUATION, SPACE, WIDENS, decode

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Points = npt.NDArray[np.int32]

GAP = np.int32(-1)  # separates two units in the points of an n-gram
_UNDERSCORE = 0x5F
_BASIS = np.uint64(0xCBF29CE484222325)  # FNV-1a, over code points
_PRIME = np.uint64(0x100000001B3)
_RADIX = np.uint64(0x9E3779B97F4A7C15)  # odd, so that its powers never vanish


class GramTable(NamedTuple):
    """Distinct n-grams in ascending order of hash.

    Attributes:
        n: units in an n-gram.
        code: whether units are code tokens rather than words.
        hashes: uint64[g], ascending.
        directory: int64[2^b + 1]: for each value of the top b bits, the first hash at or above it.
        shift: 64 - b.
        points: int32[...]: the units of all n-grams, separated by :data:`GAP`.
        point_offsets: int64[g + 1] into ``points``.
    """

    n: int
    code: bool
    hashes: npt.NDArray[np.uint64]
    directory: Ints
    shift: int
    points: Points
    point_offsets: Ints


class Hits(NamedTuple):
    """N-grams of the table found in documents, by document and position; int64[h] each.

    Attributes:
        document: the document's index in the buffer.
        gram: the n-gram's index in the table.
        start: the byte in the document where its first unit starts.
        stop: the byte after its last unit.
    """

    document: Ints
    gram: Ints
    start: Ints
    stop: Ints


def directory_of(hashes: npt.NDArray[np.uint64]) -> tuple[Ints, int]:
    """The directory and shift for ascending hashes: two to four slots per hash, so that most misses end at the slot."""
    bits = min(24, max(1, len(hashes).bit_length() + 1))
    edges = np.arange((1 << bits) + 1, dtype=np.uint64) << np.uint64(64 - bits)
    directory = np.searchsorted(hashes, edges[:-1], side="left").astype(np.int64)
    return np.append(directory, np.int64(len(hashes))), 64 - bits


def every_ngram(data: Bytes, offsets: Ints, n: int, code: bool) -> tuple[npt.NDArray[np.uint64], Ints, Points, Ints]:
    """All n-grams of all texts.

    Returns:
        hashes uint64[m], text numbers int64[m], points int32[...] and their offsets int64[m + 1].
    """
    length = int(offsets[-1] - offsets[0])
    hashes = np.empty(length, dtype=np.uint64)
    places = np.empty((3, length), dtype=np.int64)
    classes, lower = code_points.classes(), code_points.lower_case()
    count = _every(data, offsets, n, code, classes, lower, hashes, places)
    point_offsets = np.zeros(count + 1, dtype=np.int64)
    _lengths(data, places[:, :count], code, classes, lower, point_offsets)
    np.cumsum(point_offsets, out=point_offsets)
    points = np.empty(int(point_offsets[-1]), dtype=np.int32)
    _write_points(data, places[:, :count], code, classes, lower, points, point_offsets)
    return hashes[:count], places[0, :count], points, point_offsets


def find_ngrams(data: Bytes, offsets: Ints, table: GramTable) -> Hits:
    """Search documents for the n-grams of a table.

    Args:
        data: uint8[n_bytes], valid UTF-8.
        offsets: int64[n_docs + 1] of bytes into ``data``.
        table: what to find.
    """
    room = 1024
    while True:
        out = np.empty((4, room), dtype=np.int64)
        count = _find(data, offsets, table, code_points.classes(), code_points.lower_case(), out)
        if count <= room:
            return Hits(*out[:, :count])
        room = count


@inlined
def mix(value: np.uint64) -> np.uint64:
    """MurmurHash3's finalizer: every input bit affects every output bit."""
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> np.uint64(33))


@borrowing
def _next_word(data: Bytes, i: int, end: int, classes: Bytes, lower: Points) -> tuple[np.uint64, int, int, int]:
    """The next word from byte ``i`` on: (hash, start, stop, where to continue); start is -1 if there is none."""
    value, start, stop = _BASIS, -1, -1
    while i < end:
        point, after = decode(data, i)
        flags = classes[np.uint64(point)]
        if flags & SPACE:
            if start >= 0:
                return mix(value), start, stop, after
        elif not flags & PUNCTUATION:
            if start < 0:
                start = i
            stop = after
            value = (value ^ np.uint64(lower[np.uint64(point)])) * _PRIME
            if flags & WIDENS:
                value = (value ^ np.uint64(DOT_ABOVE)) * _PRIME
        i = after
    return mix(value), start, stop, i


@borrowing
def _next_token(data: Bytes, i: int, end: int, classes: Bytes) -> tuple[np.uint64, int, int, int]:
    """The next code token from byte ``i`` on, as in :func:`_next_word`."""
    value, start, stop = _BASIS, -1, -1
    while i < end:
        point, after = decode(data, i)
        flags = classes[np.uint64(point)]
        if flags & ALPHANUMERIC or point == _UNDERSCORE:
            if start < 0:
                start = i
            stop = after
            value = (value ^ np.uint64(point)) * _PRIME
        elif start >= 0:
            return mix(value), start, stop, i
        elif not flags & SPACE:
            return mix((value ^ np.uint64(point)) * _PRIME), i, after, after
        i = after
    return mix(value), start, stop, i


@borrowing
def _power(exponent: int) -> np.uint64:
    result = np.uint64(1)
    for _ in range(exponent):
        result *= _RADIX
    return result


@kernel
def _every(
    data: Bytes,
    offsets: Ints,
    n: int,
    code: bool,
    classes: Bytes,
    lower: Points,
    hashes: npt.NDArray[np.uint64],
    places: Ints,
) -> int:
    """Hash every n-gram; ``places`` receives text, start and stop (bytes into ``data``). Returns their number."""
    units = np.empty(n, dtype=np.uint64)
    starts = np.empty(n, dtype=np.int64)
    oldest = _power(n)
    count = 0
    for d in range(len(offsets) - 1):
        i, end = offsets[d], offsets[d + 1]
        rolling, seen = np.uint64(0), 0
        while True:
            if code:
                value, start, stop, i = _next_token(data, i, end, classes)
            else:
                value, start, stop, i = _next_word(data, i, end, classes, lower)
            if start < 0:
                break
            at = seen % n
            rolling = rolling * _RADIX + value
            if seen >= n:
                rolling -= units[at] * oldest
            units[at], starts[at] = value, start
            seen += 1
            if seen >= n:
                hashes[count] = mix(rolling)
                places[0, count], places[1, count], places[2, count] = d, starts[seen % n], stop
                count += 1
    return count


@kernel
def _find(data: Bytes, offsets: Ints, table: GramTable, classes: Bytes, lower: Points, out: Ints) -> int:
    """Fill ``out`` (fields of :class:`Hits` x hits) as far as there is room; returns the number of hits."""
    n = table.n
    units = np.empty(n, dtype=np.uint64)
    starts = np.empty(n, dtype=np.int64)
    oldest = _power(n)
    shift = np.uint64(table.shift)
    count = 0
    for d in range(len(offsets) - 1):
        i, end = offsets[d], offsets[d + 1]
        rolling, seen, at = np.uint64(0), 0, 0
        while True:
            if table.code:
                value, start, stop, i = _next_token(data, i, end, classes)
            else:
                value, start, stop, i = _next_word(data, i, end, classes, lower)
            if start < 0:
                break
            rolling = rolling * _RADIX + value
            if seen >= n:
                rolling -= units[at] * oldest
            units[at], starts[at] = value, start
            seen += 1
            at += 1
            if at == n:
                at = 0
            if seen < n:
                continue
            wanted = mix(rolling)
            slot = np.int64(wanted >> shift)
            for gram in range(table.directory[slot], table.directory[slot + 1]):
                if table.hashes[gram] != wanted:
                    continue
                first, last = table.point_offsets[gram], table.point_offsets[gram + 1]
                if _normal(data, starts[at], stop, table.code, classes, lower, table.points[first:last], True) >= 0:
                    if count < out.shape[1]:
                        out[0, count], out[1, count] = d, gram
                        out[2, count], out[3, count] = starts[at] - offsets[d], stop - offsets[d]
                    count += 1
                    break
    return count


@kernel
def _normal(
    data: Bytes, start: int, stop: int, code: bool, classes: Bytes, lower: Points, points: Points, check: bool
) -> int:
    """The units between two bytes, separated by :data:`GAP`: written to ``points``, or compared with all of it.

    Returns:
        The number of points; -1 if ``check`` is set and they differ. If there is too little room, only the count.
    """
    count = 0
    word = gap = False
    i = start
    while i < stop:
        point, i = decode(data, i)
        flags = classes[np.uint64(point)]
        if flags & SPACE:
            gap = True
            continue
        if code:
            # A symbol stands alone; letters, digits and _ continue the previous token.
            inside = flags & ALPHANUMERIC != 0 or point == _UNDERSCORE
            gap = gap or not (inside and word)
            word = inside
        elif flags & PUNCTUATION:
            continue
        else:
            point = np.int64(lower[np.uint64(point)])
        for k in range(3):
            if k == 0 and not (gap and count > 0):
                continue
            if k == 2 and (code or not flags & WIDENS):
                continue
            emitted = GAP if k == 0 else np.int32(point) if k == 1 else np.int32(DOT_ABOVE)
            if check and (count >= len(points) or points[count] != emitted):
                return -1
            if not check and count < len(points):
                points[count] = emitted
            count += 1
        gap = False
    return -1 if check and count != len(points) else count


@kernel
def _lengths(data: Bytes, places: Ints, code: bool, classes: Bytes, lower: Points, offsets: Ints) -> None:
    nothing = np.empty(0, dtype=np.int32)
    for g in range(places.shape[1]):
        offsets[g + 1] = _normal(data, places[1, g], places[2, g], code, classes, lower, nothing, False)


@kernel
def _write_points(
    data: Bytes, places: Ints, code: bool, classes: Bytes, lower: Points, points: Points, offsets: Ints
) -> None:
    for g in range(places.shape[1]):
        room = points[offsets[g] : offsets[g + 1]]
        _normal(data, places[1, g], places[2, g], code, classes, lower, room, False)
