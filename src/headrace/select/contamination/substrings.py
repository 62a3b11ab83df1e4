"""Search documents for whole texts: lowercased, whitespace collapsed, anywhere, including inside words.

This is ``pattern in document`` for all patterns at once: a rolling hash over the first :data:`LEAST` characters of the
patterns (Karp and Rabin 1987), then a comparison with the whole pattern. The test is that of bigcode-dataset
(``decontamination/find_substrings.py``: ``in`` after lowercasing), whose time grows with the number of patterns; this
one's does not.

Most documents need no rolling hash: any text with those characters has, at one of every :data:`STEP` positions, one of
the :data:`STEP` substrings of :data:`STRETCH` characters in them. A document is searched only if the substring at such
a position belongs to a pattern (the skipping of Wu and Manber 1994, TR-94-17).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.flow.kernels import borrowing, kernel
from headrace.select import code_points
from headrace.select.code_points import DOT_ABOVE, SPACE, WIDENS, decode
from headrace.select.contamination.ngrams import Bytes, Ints, Points, directory_of, mix

# Characters. The GPT-4 report (2303.08774, appendix C) counts a match of 50 characters as contamination; the fixtures'
# shorter solutions look like "return x + y".
LEAST = 50
# Of 11,162 documents of the corpus, 7 have a 25-character substring of HumanEval at such a position; 268 have a
# 16-character one. The kernel takes 1.6 ns per byte, the rolling hash 5.5.
STRETCH = 20
STEP = LEAST - STRETCH + 1
_ROOM = 1 << 12  # points of a document held at once
_BLANK = np.int64(0x20)
_RADIX = np.uint64(0x9E3779B97F4A7C15)
_SPREAD = np.uint64(0xC2B2AE3D27D4EB4F)  # xxHash64's second prime
_ALL = 0xFFFFFFFFFFFFFFFF
# 8 kB, which stay in the L1 cache; with a benchmark of a thousand questions, 98 % of the bits are 0.
_MARKS = 1 << 16
_MARK_SHIFT, _BIT, _SIX, _ONE = np.uint64(48), np.uint64(63), np.uint64(6), np.uint64(1)
_FACTORS = np.array([pow(int(_RADIX), i + 1, 1 << 64) for i in range(STRETCH)], dtype=np.uint64)


class PatternTable(NamedTuple):
    """Patterns in ascending order of the hash of their first :data:`LEAST` points.

    Attributes:
        hashes: uint64[p], ascending.
        directory: as in the n-gram table.
        shift: as in the n-gram table.
        marks: uint64[1024]: a bitmap of the rolling hashes, indexed by :func:`_mark`; most windows end here.
        stretches: uint64[2**k]: a hash table of substring hashes, 0 if empty.
        number: int64[p]: the pattern's number as given.
        points: int32[...]: the patterns in normal form.
        point_offsets: int64[p + 1] into ``points``.
    """

    hashes: npt.NDArray[np.uint64]
    directory: Ints
    shift: int
    marks: npt.NDArray[np.uint64]
    stretches: npt.NDArray[np.uint64]
    number: Ints
    points: Points
    point_offsets: Ints


class Found(NamedTuple):
    """Patterns found in documents, by document and position; int64[f] each.

    Attributes:
        document: the document's index in the buffer.
        pattern: the number of the pattern.
        start: the byte in the document where it starts.
        stop: the byte after it.
    """

    document: Ints
    pattern: Ints
    start: Ints
    stop: Ints


def normal_form(text: str) -> str:
    """Lowercase character by character, collapse whitespace to single spaces, strip."""
    return " ".join("".join(map(str.lower, text)).split())


def pattern_table(patterns: Sequence[str]) -> PatternTable:
    """Index patterns; those shorter than :data:`LEAST` in normal form are left out."""
    forms = [(number, np.array([*map(ord, normal_form(text))], np.int32)) for number, text in enumerate(patterns)]
    rolled = [(_rolling_hash(form), number, form) for number, form in forms if len(form) >= LEAST]
    hashed = sorted((int(mix(np.uint64(value))), number, form) for value, number, form in rolled)
    hashes = np.array([value for value, _, _ in hashed], dtype=np.uint64)
    marks = np.zeros(_MARKS // 64, dtype=np.uint64)
    for value, _, _ in rolled:
        word, bit = divmod(((value * int(_SPREAD)) & _ALL) >> int(_MARK_SHIFT), 64)
        marks[word] |= np.uint64(1 << bit)
    stretches = np.zeros(1 << (4 * STEP * len(rolled)).bit_length(), dtype=np.uint64)
    for _, _, form in rolled:
        _enter(form[:LEAST], stretches, _FACTORS)
    directory, shift = directory_of(hashes)
    return PatternTable(
        hashes,
        directory,
        shift,
        marks,
        stretches,
        np.array([number for _, number, _ in hashed], dtype=np.int64),
        np.concatenate([np.empty(0, np.int32), *(form for _, _, form in hashed)]),
        np.cumsum([0, *(len(form) for _, _, form in hashed)], dtype=np.int64),
    )


def _rolling_hash(form: Points) -> int:
    """The rolling hash of a pattern's first points, in Python integers."""
    value = 0
    for point in form[:LEAST].tolist():
        value = (value * int(_RADIX) + point) & _ALL
    return value


def find_patterns(data: Bytes, offsets: Ints, table: PatternTable) -> Found:
    """Search documents for patterns.

    Args:
        data: uint8[n_bytes], valid UTF-8.
        offsets: int64[n_docs + 1] of bytes into ``data``.
        table: what to find.
    """
    tables = code_points.classes(), code_points.lower_case()
    likely = np.empty(len(offsets), dtype=np.int64)
    held = np.empty(_ROOM + 3, dtype=np.int32)
    ascii_forms = np.where(tables[0][:128] & SPACE, np.int32(_BLANK), tables[1][:128])
    likely = likely[: _likely(data, offsets, table.stretches, _FACTORS, *tables, ascii_forms, held, likely)]
    room = 256
    while True:
        out = np.empty((4, room), dtype=np.int64)
        count = _find(data, offsets, likely, table, *tables, out)
        if count <= room:
            return Found(*out[:, :count])
        room = count


@borrowing
def _slot(
    points: Points, stretches: npt.NDArray[np.uint64], factors: npt.NDArray[np.uint64]
) -> tuple[np.uint64, np.uint64]:
    """The slot of a substring's hash in the table, existing or new, and the hash."""
    value = np.uint64(0)
    for i in range(factors.size):
        value += np.uint64(points[i]) * factors[i]
    value = mix(value) | _ONE
    last = np.uint64(stretches.size - 1)
    slot = value >> np.uint64(32) & last
    while stretches[slot] != 0 and stretches[slot] != value:
        slot = (slot + _ONE) & last
    return slot, value


@kernel
def _enter(form: Points, stretches: npt.NDArray[np.uint64], factors: npt.NDArray[np.uint64]) -> None:
    """Add the substrings of a pattern's first points to the table."""
    for at in range(STEP):
        slot, value = _slot(form[at : at + STRETCH], stretches, factors)
        stretches[slot] = value


@borrowing
def _likely(
    data: Bytes,
    offsets: Ints,
    stretches: npt.NDArray[np.uint64],
    factors: npt.NDArray[np.uint64],
    classes: Bytes,
    lower: Points,
    ascii_forms: Points,
    held: Points,
    out: Ints,
) -> int:
    """Write the documents that may contain a pattern to ``out``; returns their number.

    The normal form is written without branching on the kind of character: a space after another is overwritten.
    ``held`` has room for what a character can add: two points and a space.
    """
    count = 0
    for d in range(len(offsets) - 1):
        i, end = offsets[d], offsets[d + 1]
        size, at, after_blank = np.uint64(0), np.uint64(0), np.uint64(1)
        found = False
        while i < end and not found:
            while i < end and size < np.uint64(_ROOM):
                byte = data[i]
                if byte < 0x80:
                    i += 1
                    normal = ascii_forms[byte]
                    held[size] = normal
                    blank = np.uint64(normal == 0x20)
                    size += _ONE - (blank & after_blank)
                    after_blank = blank
                    continue
                point, i = decode(data, i)
                flags = classes[np.uint64(point)]
                blank = np.uint64((flags >> 2) & 1)
                held[size] = _BLANK if blank else lower[np.uint64(point)]
                size += _ONE - (blank & after_blank)
                after_blank = blank
                if flags & WIDENS:
                    held[size] = DOT_ABOVE
                    size += _ONE
            while at + np.uint64(STRETCH) <= size and not found:
                slot, _ = _slot(held[at : at + np.uint64(STRETCH)], stretches, factors)
                found = stretches[slot] != 0
                at += np.uint64(STEP)
            # Move what has not been examined to the start.
            kept = min(at, size)
            for k in range(size - kept):
                held[k] = held[kept + k]
            size, at = size - kept, at - kept
        out[count] = d
        count += found
    return count


@kernel
def _find(
    data: Bytes, offsets: Ints, documents: Ints, table: PatternTable, classes: Bytes, lower: Points, out: Ints
) -> int:
    """Fill ``out`` (fields of :class:`Found` x matches) as far as there is room; returns the number of matches."""
    window = np.zeros(LEAST, dtype=np.uint64)
    starts = np.empty(LEAST, dtype=np.int64)
    oldest = np.uint64(1)
    for _ in range(LEAST):
        oldest *= _RADIX
    marks = table.marks
    count = 0
    for d in documents:
        i, end = offsets[d], offsets[d + 1]
        rolling, filled, at, blank = np.uint64(0), 0, 0, np.int64(-1)
        window[:] = 0
        while i < end:
            here = i
            point, i = decode(data, i)
            flags = classes[np.uint64(point)]
            if flags & SPACE:
                if blank < 0:
                    blank = here
                continue
            if blank >= 0 and filled > 0:
                rolling, at = _push(window, starts, rolling, at, oldest, int(_BLANK), int(blank))
                filled += 1
                if filled >= LEAST and _marked(marks, rolling):
                    count = _compare(data, offsets, d, starts[at], rolling, table, classes, lower, out, count)
            blank = np.int64(-1)
            rolling, at = _push(window, starts, rolling, at, oldest, int(np.int64(lower[np.uint64(point)])), here)
            filled += 1
            if filled >= LEAST and _marked(marks, rolling):
                count = _compare(data, offsets, d, starts[at], rolling, table, classes, lower, out, count)
            if flags & WIDENS:
                rolling, at = _push(window, starts, rolling, at, oldest, DOT_ABOVE, here)
                filled += 1
                if filled >= LEAST and _marked(marks, rolling):
                    count = _compare(data, offsets, d, starts[at], rolling, table, classes, lower, out, count)
    return count


@borrowing
def _push(
    window: npt.NDArray[np.uint64], starts: Ints, rolling: np.uint64, at: int, oldest: np.uint64, point: int, here: int
) -> tuple[np.uint64, int]:
    """Push a point into the window and the oldest out; returns the new hash, and the index of the oldest."""
    value = np.uint64(point)
    rolling = rolling * _RADIX + (value - window[at] * oldest)
    window[at], starts[at] = value, here
    return rolling, at + 1 if at + 1 < LEAST else 0


@borrowing
def _marked(marks: npt.NDArray[np.uint64], rolling: np.uint64) -> bool:
    place = (rolling * _SPREAD) >> _MARK_SHIFT
    return bool((marks[place >> _SIX] >> (place & _BIT)) & _ONE)


@borrowing
def _compare(
    data: Bytes, offsets: Ints, d: int, start: int, rolling: np.uint64, table: PatternTable, classes: Bytes,
    lower: Points, out: Ints, count: int,
) -> int:  # fmt: skip
    """Add the patterns that a document contains from byte ``start`` on to the matches; returns their new number."""
    wanted = mix(rolling)
    slot = np.int64(wanted >> np.uint64(table.shift))
    for p in range(table.directory[slot], table.directory[slot + 1]):
        if table.hashes[p] != wanted:
            continue
        first, last = table.point_offsets[p], table.point_offsets[p + 1]
        stop = _same(data, start, offsets[d + 1], classes, lower, table.points, first, last)
        if stop >= 0:
            if count < out.shape[1]:
                out[0, count], out[1, count] = d, table.number[p]
                out[2, count], out[3, count] = start - offsets[d], stop - offsets[d]
            count += 1
    return count


@borrowing
def _same(data: Bytes, i: int, end: int, classes: Bytes, lower: Points, points: Points, first: int, last: int) -> int:
    """The end of the text from byte ``i`` whose normal form is ``points[first:last]``, or -1."""
    matched = first
    blank = False
    while i < end:
        point, i = decode(data, i)
        flags = classes[np.uint64(point)]
        if flags & SPACE:
            blank = True
            continue
        if blank:
            if points[matched] != _BLANK:
                return -1
            matched += 1
            blank = False
        # A normal form does not end in a space, so there is a point to compare with.
        if points[matched] != lower[np.uint64(point)]:
            return -1
        matched += 1
        if flags & WIDENS and matched < last:
            if points[matched] != DOT_ABOVE:
                return -1
            matched += 1
        if matched == last:
            return i
    return -1
