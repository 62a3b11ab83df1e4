"""Clean text as SlimPajama does for comparison: lower case, no ASCII punctuation, whitespace collapsed to single
spaces.

Used by the short-document filter and by deduplication. It is exactly

    re.sub(r"\\s+", " ", text.lower().translate(PUNCTUATION).strip())

(SlimPajama, ``preprocessing/filter.py`` and ``dedup/to_hash.py``), computed by a Numba kernel over Arrow buffers. Case
and whitespace come from tables of the running Python, so the kernel and the expression cannot disagree. Two letters
have a lower case that does not fit in a table entry: U+0130 becomes two code points, and U+03A3 (sigma) depends on its
neighbors. Documents that contain either go through Python.
"""

from __future__ import annotations

import re
import string
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from headrace.flow.kernels import borrowing
from headrace.select.code_points import LAST, decode, every_character

PUNCTUATION = str.maketrans("", "", string.punctuation)

# Markers in the table, beyond the last code point.
_DROP = np.uint32(0xFFFFFFFF)
_BY_PYTHON = np.uint32(0xFFFFFFFE)
_SPACE = np.uint32(0x20)

# Unsigned positions need no test for negative ones, which would be most of the work per byte.
_STEP, _ONE = np.uint64(64), np.uint64(1)
_DROP_ASCII, _CHAR_ASCII = np.uint8(0x80), np.uint8(0x7F)


def clean_text(text: str) -> str:
    """The cleaned form of one text in plain Python, which the kernel must equal."""
    return re.sub(r"\s+", " ", text.lower().translate(PUNCTUATION).strip())


@lru_cache(maxsize=1)
def _table() -> npt.NDArray[np.uint32]:
    """What each code point becomes: uint32[0x110000] of a code point, a space, or one of the markers."""
    table = np.arange(LAST + 1, dtype=np.uint32)
    every = every_character()
    plain = every.replace("\u0130", "?").replace("\u03a3", "?")
    table[:] = np.frombuffer(plain.lower().encode("utf-32-le", "surrogatepass"), dtype="<u4")
    for space in re.finditer(r"\s", every):
        table[space.start()] = _SPACE
    for mark in string.punctuation:
        table[ord(mark)] = _DROP
    table[0x0130] = table[0x03A3] = _BY_PYTHON
    return table


@lru_cache(maxsize=1)
def _ascii_table() -> npt.NDArray[np.uint8]:
    """The same for single ASCII bytes: uint8[128] of a character, or 0x80 if it is dropped."""
    table = _table()[:128]
    return np.where(table == _DROP, _DROP_ASCII, table).astype(np.uint8)


def clean(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Clean every document of a buffer.

    Args:
        data: uint8[n_bytes], valid UTF-8.
        offsets: int64[n_docs + 1] of bytes into ``data``; the first need not be 0.

    Returns:
        ``(points, starts, lengths)``: document d is ``points[starts[d] : starts[d] + lengths[d]]``, uint32 code points.
        Lengths are int64, in code points. The buffer's contents between documents are undefined: each starts where its
        bytes did, because cleaning never produces more code points than there were bytes.
    """
    n = len(offsets) - 1
    starts = offsets[:-1] - offsets[0]
    points = np.empty(int(offsets[-1] - offsets[0]), dtype=np.uint32)
    lengths = np.empty(n, dtype=np.int64)
    _clean(data, offsets, _table(), _ascii_table(), points, lengths)
    for d in np.flatnonzero(lengths < 0):
        raw = data[offsets[d] : offsets[d + 1]].tobytes()
        cleaned = np.frombuffer(clean_text(raw.decode("utf-8", "replace")).encode("utf-32-le"), dtype="<u4")
        points[starts[d] : starts[d] + len(cleaned)] = cleaned
        lengths[d] = len(cleaned)
    return points, starts, lengths


@borrowing
def _clean(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    table: npt.NDArray[np.uint32],
    ascii_table: npt.NDArray[np.uint8],
    points: npt.NDArray[np.uint32],
    lengths: npt.NDArray[np.int64],
) -> None:
    """Clean by table into ``points``; a length of -1 means that Python must do it."""
    for d in range(len(lengths)):
        i, end = np.uint64(offsets[d]), np.uint64(offsets[d + 1])
        start = np.uint64(offsets[d] - offsets[0])
        at = start
        space = np.uint8(1)  # strips leading whitespace, as if a space came before the text
        by_python = False
        while i < end and not by_python:
            while i + _STEP <= end and _is_ascii(data, i):
                at, space = _clean_ascii(data, i, ascii_table, points, at, space)
                i += _STEP
            stop = min(i + _STEP, end)
            while i < stop:
                code, after = decode(data, int(np.int64(i)))
                i = np.uint64(after)
                point = table[code]
                if point == _DROP:
                    continue
                if point == _BY_PYTHON:
                    by_python = True
                    break
                if point == _SPACE and space:
                    continue
                space = np.uint8(point == _SPACE)
                points[at] = point
                at += _ONE
        if at > start and points[at - _ONE] == _SPACE:
            at -= _ONE
        lengths[d] = -1 if by_python else np.int64(at - start)


@borrowing
def _is_ascii(data: npt.NDArray[np.uint8], i: np.uint64) -> bool:
    """Whether the 64 bytes from ``i`` on are all ASCII."""
    high = np.uint8(0)
    for j in range(_STEP):
        high |= data[i + j]
    return bool(high < 0x80)


@borrowing
def _clean_ascii(
    data: npt.NDArray[np.uint8],
    i: np.uint64,
    ascii_table: npt.NDArray[np.uint8],
    points: npt.NDArray[np.uint32],
    at: np.uint64,
    space: np.uint8,
) -> tuple[np.uint64, np.uint8]:
    """Clean 64 bytes of ASCII without data-dependent branches; returns the new ``at`` and ``space``."""
    for j in range(_STEP):
        char = ascii_table[data[i + j]]
        points[at] = np.uint32(char & _CHAR_ASCII)
        blank = np.uint8(char == 0x20)
        drop = char >> np.uint8(7)
        at += np.uint64((drop | (blank & space)) ^ np.uint8(1))
        space = (space & drop) | blank
    return at, space
