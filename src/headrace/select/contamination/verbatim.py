"""Search documents for texts of any length exactly as bigcode-dataset does: ``text.lower() in document.lower()``.

Its script (``decontamination/find_substrings.py``) asks that of each text in turn, so its time grows with the number of
texts. Here the hashes of all prefixes of a document (Karp and Rabin 1987) give the hash of any stretch of it in one
step; a text is compared only where the hash of its first 1, 2, 4, ... 32 characters and that of its whole agree.

``str.lower`` is that of each character, but for a sigma at the end of a word. So both sigmas are taken for one, and
texts that contain one are asked for again in Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.flow.kernels import borrowing, kernel
from headrace.select import code_points
from headrace.select.code_points import DOT_ABOVE, WIDENS, decode
from headrace.select.contamination.ngrams import Bytes, Ints, Points, directory_of, mix
from headrace.select.contamination.substrings import Found

Hashes = npt.NDArray[np.uint64]

WIDTHS = (32, 16, 8, 4, 2, 1)  # characters of a text that are looked up
_PIECE = 1 << 14  # points of a document looked at together: a quarter of the L2 cache
_SIGMA, _FINAL_SIGMA = "\u03c3", "\u03c2"
_FINAL, _INNER = np.int64(ord(_FINAL_SIGMA)), np.int32(ord(_SIGMA))
_RADIX = np.uint64(0x9E3779B97F4A7C15)
_SPREAD = np.uint64(0xC2B2AE3D27D4EB4F)  # xxHash64's second prime
_MARKS = 1 << 18  # bits for each width: with a thousand questions, 99.6 % are 0
_MARK_SHIFT, _BIT, _SIX, _ONE = np.uint64(46), np.uint64(63), np.uint64(6), np.uint64(1)


class VerbatimTable(NamedTuple):
    """Texts in ascending order of the hash of their first characters.

    Attributes:
        widths: int64[t]: how many characters are looked up, each width that some text has.
        powers: uint64[t]: the radix to the power of each width.
        marks: uint64[t, 4096]: for each width a bitmap of the hashes.
        hashes: uint64[p], ascending.
        directory: as in the n-gram table.
        shift: as in the n-gram table.
        whole: uint64[2, p]: the hash of the whole text, and the radix to the power of its length.
        number: int64[p]: the text's number as given.
        points: int32[...]: the texts in lower case.
        point_offsets: int64[p + 1] into ``points``.
        texts: the texts in lower case, as given.
    """

    widths: Ints
    powers: Hashes
    marks: npt.NDArray[np.uint64]
    hashes: Hashes
    directory: Ints
    shift: int
    whole: npt.NDArray[np.uint64]
    number: Ints
    points: Points
    point_offsets: Ints
    texts: list[str]


def verbatim_table(texts: Sequence[str]) -> VerbatimTable:
    """Index texts; empty ones, which are in every document, are left out."""
    lowered = [text.lower() for text in texts]
    forms = [
        (number, np.frombuffer(text.replace(_FINAL_SIGMA, _SIGMA).encode("utf-32-le"), dtype="<i4").astype(np.int32))
        for number, text in enumerate(lowered)
        if text
    ]
    widths = [width for width in WIDTHS if any(_width(form) == width for _, form in forms)]
    marks = np.zeros((len(widths), _MARKS // 64), dtype=np.uint64)
    entries = []
    for number, form in forms:
        row = widths.index(_width(form))
        value, whole, power = (int(one) for one in _hashes_of(form, widths[row]))
        word, bit = divmod(((value * int(_SPREAD)) & 0xFFFFFFFFFFFFFFFF) >> int(_MARK_SHIFT), 64)
        marks[row, word] |= np.uint64(1 << bit)
        entries.append((int(mix(np.uint64(value))), number, whole, power, form))
    entries.sort(key=lambda entry: entry[:2])
    hashes = np.array([entry[0] for entry in entries], dtype=np.uint64)
    directory, shift = directory_of(hashes)
    return VerbatimTable(
        np.array(widths, dtype=np.int64),
        np.array([pow(int(_RADIX), width, 1 << 64) for width in widths], dtype=np.uint64),
        marks,
        hashes,
        directory,
        shift,
        np.array([[entry[2] for entry in entries], [entry[3] for entry in entries]], dtype=np.uint64),
        np.array([entry[1] for entry in entries], dtype=np.int64),
        np.concatenate([np.empty(0, np.int32), *(entry[4] for entry in entries)]),
        np.cumsum([0, *(len(entry[4]) for entry in entries)], dtype=np.int64),
        lowered,
    )


def _width(form: Points) -> int:
    return next(width for width in WIDTHS if width <= len(form))


def find_verbatim(data: Bytes, offsets: Ints, table: VerbatimTable) -> Found:
    """Search documents for texts; of each text in a document, its first place.

    Args:
        data: uint8[n_bytes], valid UTF-8.
        offsets: int64[n_docs + 1] of bytes into ``data``.
        table: what to find.
    """
    lengths = np.diff(table.point_offsets)
    longest = int(lengths.max(initial=1))
    held, starts = np.empty(_PIECE + longest + 3, dtype=np.int32), np.empty(_PIECE + longest + 3, dtype=np.int64)
    prefixes = np.zeros(_PIECE + longest + 4, dtype=np.uint64)
    tables = code_points.classes(), code_points.lower_case()
    seen, room = np.empty(len(table.hashes), dtype=np.int64), 256
    while True:
        out = np.empty((4, room), dtype=np.int64)
        seen[:] = -1
        count = _find(data, offsets, *table[:-1], *tables, longest, held, starts, prefixes, seen, out)
        if count <= room:
            break
        room = count
    document, pattern, start, stop = out[:, :count]
    sure = np.ones(count, dtype=bool)
    for k in np.flatnonzero([_SIGMA in table.texts[p] or _FINAL_SIGMA in table.texts[p] for p in pattern.tolist()]):
        d = int(document[k])
        text = data[offsets[d] : offsets[d + 1]].tobytes().decode()
        sure[k] = table.texts[pattern[k]] in text.lower()
    return Found(document[sure], pattern[sure], start[sure], stop[sure])


@kernel
def _hashes_of(form: Points, width: int) -> tuple[np.uint64, np.uint64, np.uint64]:
    """The hash of a text's first characters, that of all, and the radix to the power of their number."""
    first, whole, power = np.uint64(0), np.uint64(0), np.uint64(1)
    for k in range(len(form)):
        whole = whole * _RADIX + np.uint64(form[k])
        power *= _RADIX
        if k + 1 == width:
            first = whole
    return first, whole, power


@kernel
def _find(
    data: Bytes, offsets: Ints, widths: Ints, powers: Hashes, marks: Hashes, hashes: Hashes, directory: Ints,
    shift: int, whole: Hashes, number: Ints, points: Points, point_offsets: Ints, classes: Bytes, lower: Points,
    longest: int, held: Points, starts: Ints, prefixes: Hashes, seen: Ints, out: Ints,
) -> int:  # fmt: skip
    """Fill ``out`` (fields of :class:`Found` x matches) as far as there is room; returns the number of matches.

    A document is looked at in pieces that overlap by the longest text: ``held`` has the points of a piece in lower
    case, ``starts`` the byte of each, ``prefixes`` the hashes of what precedes each.
    """
    count, full = 0, held.size - 3
    for d in range(len(offsets) - 1):
        i, end = offsets[d], offsets[d + 1]
        size = 0
        prefixes[0] = np.uint64(0)
        while True:
            while i < end and size < full:
                here = i
                point, i = decode(data, i)
                widens = classes[np.uint64(point)] & WIDENS
                point = np.int64(lower[np.uint64(point)])
                size = _push(held, starts, prefixes, size, _INNER if point == _FINAL else np.int32(point), here)
                if widens:
                    size = _push(held, starts, prefixes, size, np.int32(DOT_ABOVE), here)
            starts[size] = i
            begins = size if i >= end else size - longest  # where texts can begin that are here as a whole
            for t in range(len(widths)):
                width, power, row = widths[t], powers[t], marks[t]
                for at in range(min(begins, size - width + 1)):
                    value = prefixes[at + width] - prefixes[at] * power
                    place = (value * _SPREAD) >> _MARK_SHIFT
                    if (row[place >> _SIX] >> (place & _BIT)) & _ONE:
                        count = _compare(
                            d, at, size, mix(value), hashes, directory, shift, whole, number, points, point_offsets,
                            held, starts, prefixes, seen, out, offsets[d], count,
                        )  # fmt: skip
            if i >= end:
                break
            for k in range(size - begins):
                held[k], starts[k], prefixes[k] = held[begins + k], starts[begins + k], prefixes[begins + k]
            size -= begins
            prefixes[size] = prefixes[begins + size]
    return count


@borrowing
def _push(held: Points, starts: Ints, prefixes: Hashes, size: int, point: np.int32, here: int) -> int:
    held[size], starts[size] = point, here
    prefixes[size + 1] = prefixes[size] * _RADIX + np.uint64(point)
    return size + 1


@borrowing
def _compare(
    d: int, at: int, size: int, wanted: np.uint64, hashes: Hashes, directory: Ints, shift: int, whole: Hashes,
    number: Ints, points: Points, point_offsets: Ints, held: Points, starts: Ints, prefixes: Hashes, seen: Ints,
    out: Ints, base: int, count: int,
) -> int:  # fmt: skip
    """Add the texts that begin at point ``at`` to the matches; returns their new number."""
    slot = np.int64(wanted >> np.uint64(shift))
    for p in range(directory[slot], directory[slot + 1]):
        first = point_offsets[p]
        length = point_offsets[p + 1] - first
        if hashes[p] != wanted or seen[p] == d or at + length > size:
            continue
        if prefixes[at + length] - prefixes[at] * whole[1, p] != whole[0, p]:
            continue
        k = 0
        while k < length and held[at + k] == points[first + k]:
            k += 1
        if k < length:
            continue
        seen[p] = d
        if count < out.shape[1]:
            out[0, count], out[1, count], out[2, count] = d, number[p], starts[at] - base
            out[3, count] = max(starts[at + length], starts[at] + 1) - base
        count += 1
    return count
