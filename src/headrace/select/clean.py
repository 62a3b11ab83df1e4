"""Text as SlimPajama compares it: lower case, no ASCII punctuation, white space collapsed to single spaces.

The short-document filter and the duplicates both look at this form. It is exactly

    re.sub(r"\\s+", " ", text.lower().translate(PUNCTUATION).strip())

(SlimPajama, ``preprocessing/filter.py`` and ``dedup/to_hash.py``), made by a Numba kernel over Arrow buffers. Case and
white space come from tables of the running Python, so that the kernel and the expression cannot disagree. Two letters
have a lower case that one table entry cannot hold: U+0130 becomes two code points, and U+03A3 (sigma) depends on its
neighbours. Documents that hold one of them go through Python.
"""

from __future__ import annotations

import re
import string
from functools import lru_cache

import numba
import numpy as np
import numpy.typing as npt

from headrace.select.code_points import decode

PUNCTUATION = str.maketrans("", "", string.punctuation)

# Marks in the table, beyond the last code point U+10FFFF.
_DROP = np.uint32(0xFFFFFFFF)
_BY_PYTHON = np.uint32(0xFFFFFFFE)
_SPACE = np.uint32(0x20)
_LAST = 0x10FFFF


def clean_text(text: str) -> str:
    """The cleaned form of one text, in plain Python: what the kernel must equal."""
    return re.sub(r"\s+", " ", text.lower().translate(PUNCTUATION).strip())


@lru_cache(maxsize=1)
def _table() -> npt.NDArray[np.uint32]:
    """What each code point becomes: uint32[0x110000] of a code point, a space, or one of the marks."""
    table = np.arange(_LAST + 1, dtype=np.uint32)
    every = "".join(map(chr, range(_LAST + 1)))
    plain = every.replace("\u0130", "?").replace("\u03a3", "?")
    table[:] = np.frombuffer(plain.lower().encode("utf-32-le", "surrogatepass"), dtype="<u4")
    for space in re.finditer(r"\s", every):
        table[space.start()] = _SPACE
    for mark in string.punctuation:
        table[ord(mark)] = _DROP
    table[0x0130] = table[0x03A3] = _BY_PYTHON
    return table


def clean(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Clean every document of a buffer.

    Args:
        data: uint8[n_bytes], valid UTF-8 (bytes that are not become U+FFFD, and nothing is read out of bounds).
        offsets: int64[n_docs + 1] of bytes into ``data``; the first need not be 0.

    Returns:
        ``(points, starts, lengths)``: document d is ``points[starts[d] : starts[d] + lengths[d]]``, as uint32 code
        points. Lengths are int64, in code points. Between documents the buffer holds nothing of meaning: each starts
        where its bytes did, because cleaning never makes more code points than there were bytes.
    """
    n = len(offsets) - 1
    starts = offsets[:-1] - offsets[0]
    points = np.empty(int(offsets[-1] - offsets[0]), dtype=np.uint32)
    lengths = np.empty(n, dtype=np.int64)
    _clean(data, offsets, _table(), points, lengths)
    for d in np.flatnonzero(lengths < 0):
        raw = data[offsets[d] : offsets[d + 1]].tobytes()
        cleaned = np.frombuffer(clean_text(raw.decode("utf-8", "replace")).encode("utf-32-le"), dtype="<u4")
        points[starts[d] : starts[d] + len(cleaned)] = cleaned
        lengths[d] = len(cleaned)
    return points, starts, lengths


@numba.njit(cache=True, nogil=True)
def _clean(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    table: npt.NDArray[np.uint32],
    points: npt.NDArray[np.uint32],
    lengths: npt.NDArray[np.int64],
) -> None:
    """Clean by table into ``points``; a length of -1 asks for Python."""
    for d in range(len(lengths)):
        i, end = offsets[d], offsets[d + 1]
        start = offsets[d] - offsets[0]
        at = start
        space = True  # leading white space is stripped as if a space came before the text
        by_python = False
        while i < end:
            # 64 bytes at a time while they are ASCII, without a branch that depends on the text.
            while i + 64 <= end:
                high = np.uint8(0)
                for j in range(i, i + 64):
                    high |= data[j]
                if high & 0x80:
                    break
                for j in range(i, i + 64):
                    point = table[data[j]]
                    points[at] = point
                    blank = point == _SPACE
                    kept = (point != _DROP) & (not (blank & space))
                    space = (space & (point == _DROP)) | blank
                    at += np.int64(kept)
                i += 64
            stop = min(i + 64, end)
            while i < stop:
                code, i = decode(data, i)
                point = table[code]
                if point == _DROP:
                    continue
                if point == _BY_PYTHON:
                    by_python = True
                    break
                if point == _SPACE:
                    if space:
                        continue
                    space = True
                else:
                    space = False
                points[at] = point
                at += 1
            if by_python:
                break
        if by_python:
            lengths[d] = -1
            continue
        if at > start and points[at - 1] == _SPACE:
            at -= 1
        lengths[d] = at - start
