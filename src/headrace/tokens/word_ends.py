"""Where a stretch of text falls apart into words, for all words of the stretch at once and without guesses.

A scanner that follows one word after the other guesses wrong at nearly every word's end, which on today's processors
costs more than everything else. But whether a match of these split patterns begins at a character depends, beside
the classes of the characters next to it, on three facts only: whether a line end comes later in the same white space,
whether line ends were taken by the signs before them, and whether a sign begins its match. So each byte gets a code,
and one pass computes "a word begins here" by logic on codes and adds it to the number of words.

Line ends, spaces and apostrophes have bits of their own in the code, as the patterns name them. A match never looks
back, so a stretch may begin at any word's beginning.
"""

from __future__ import annotations

import numba
import numpy as np

from headrace.tokens.split_patterns import code_point, contraction
from headrace.tokens.unicode_classes import LETTER, NUMBER, OTHER, SPACE

_CLASS = 3  # mask of the class
_LINE_END, _BLANK, _QUOTE, _INNER = 4, 8, 16, 32  # CR or LF; U+0020; "'"; not the first byte of its character


@numba.njit(cache=True, nogil=True)
def encode_classes(data: np.ndarray, start: int, end: int, classes: np.ndarray, codes: np.ndarray) -> None:
    """Write the code of each byte of ``data[start:end]`` to ``codes``; one more code stands for a character before."""
    codes[0] = NUMBER  # as if after a number, which begins and ends by itself in every pattern
    codes = codes[1:]
    i = start
    while i < end:
        byte = data[i]
        if byte < 0x80:
            codes[i - start] = classes[byte]
            i += 1
            continue
        point, size = code_point(data, i)
        kind = classes[point]
        codes[i - start] = kind
        for k in range(i + 1, min(i + size, end)):
            codes[k - start] = kind | _INNER
        i += size
    for i in range(end - start):
        byte = data[start + i]
        codes[i] |= _LINE_END * ((byte == 0x0A) | (byte == 0x0D)) | _BLANK * (byte == 0x20) | _QUOTE * (byte == 0x27)


@numba.njit(cache=True, nogil=True)
def _first_byte(codes: np.ndarray, at: int, starts: np.ndarray, count: int) -> int:
    """A word begins with the character of which byte ``at`` is the last; returns the new number of words."""
    while codes[at] & _INNER:
        at -= 1
    if starts[count - 1] != at:
        starts[count] = at
        count += 1
    return count


@numba.njit(cache=True, nogil=True)
def gpt2_words(data: np.ndarray, start: int, codes: np.ndarray, size: int, starts: np.ndarray) -> int:
    """Where words begin in GPT-2's pattern.

    Args:
        data: uint8.
        start: the first byte.
        codes: uint8[size + 2], from :func:`encode_classes`; the last is one for the text's end.
        size: bytes.
        starts: int32[size + 1]: gets where words begin, from 0.

    Returns:
        How many words.
    """
    starts[0] = 0
    count, i, forced = 0, 0, True
    while i < size:
        before, here, after = np.int64(codes[i]), np.int64(codes[i + 1]), np.int64(codes[i + 2])
        was_space, is_space = (before & _CLASS) == SPACE, (here & _CLASS) == SPACE
        change = (before & _CLASS) != (here & _CLASS)
        new = change & ((before & _BLANK) == 0) | is_space & ~was_space
        # The last of several spaces goes with what follows it.
        new |= is_space & was_space & ((after & _CLASS) != SPACE)
        new |= forced
        forced = False
        if new & ((here & _INNER) != 0):
            count = _first_byte(codes[1:], i, starts, count)
            i += 1
            continue
        starts[count] = i
        count += new
        if new & ((here & _QUOTE) != 0):
            more = contraction(data, start + i, start + size, 0)
            if more:
                i += more - 1
                forced = True
        i += 1
    return count


@numba.njit(cache=True, nogil=True)
def mark_later_line_ends(codes: np.ndarray, size: int, later: np.ndarray) -> None:
    """Whether a line end comes after each byte in the same white space: ``later[i]`` for ``codes[i]``, i < size + 1."""
    found = False
    for i in range(size, -1, -1):
        later[i] = found
        code = codes[i]
        found = ((code & _CLASS) == SPACE) & (((code & _LINE_END) != 0) | found)


@numba.njit(cache=True, nogil=True)
def llama3_words(
    data: np.ndarray, start: int, codes: np.ndarray, size: int, starts: np.ndarray, later: np.ndarray, digits: int
) -> int:
    """Where words begin in Llama 3's pattern.

    Args:
        data: uint8.
        start: the first byte.
        codes: uint8[size + 2], from :func:`encode_classes`; the last is one for the text's end.
        size: bytes.
        starts: int32[size + 1]: gets where words begin, from 0.
        later: bool[size + 1], from :func:`mark_later_line_ends`.
        digits: how many digits at most stand together.

    Returns:
        How many words.
    """
    starts[0] = 0
    count, i, forced, together = 0, 0, True, 0
    taken = False  # the byte before is a line end that belongs to the signs before it
    begins = False  # the byte before is of a sign that begins its match
    while i < size:
        before, here, after = np.int64(codes[i]), np.int64(codes[i + 1]), np.int64(codes[i + 2])
        old, kind = before & _CLASS, here & _CLASS
        old_end, old_blank, line_end = (before & _LINE_END) != 0, (before & _BLANK) != 0, (here & _LINE_END) != 0
        take = line_end & ((old == OTHER) | taken)
        same = (old == kind) & (kind != SPACE)
        letter = (kind == LETTER) & (((old == OTHER) & begins) | ((old == SPACE) & ~old_end))
        # White space goes to its last line end; then up to its last character, which goes with what follows.
        apart = (taken & ~take) | (old_end & ~later[i]) | (~line_end & ((after & _CLASS) != SPACE))
        space = (kind == SPACE) & (old == SPACE) & ~apart
        new = forced | ~(same | letter | ((kind == OTHER) & old_blank) | take | space)
        forced = False
        if (here & _INNER) == 0:
            begins = (old != OTHER) & ~old_blank
        taken = take
        if kind == NUMBER and (here & _INNER) == 0:
            together = 1 if new or together == digits else together + 1
            new |= together == 1
        if new & ((here & _INNER) != 0):
            count = _first_byte(codes[1:], i, starts, count)
            i += 1
            continue
        starts[count] = i
        count += new
        if new & ((here & _QUOTE) != 0):
            more = contraction(data, start + i, start + size, 0x20)
            if more:
                i += more - 1
                forced = True
        i += 1
    return count


@numba.njit(cache=True, nogil=True)
def cut_words(data: np.ndarray, start: int, size: int, joined: np.ndarray, starts: np.ndarray) -> int:
    """Where words begin if text is cut between all bytes that stand side by side in no token.

    Args:
        data: uint8.
        start: the first byte.
        size: bytes.
        joined: uint8[65536], 0 or 1: whether bytes ``a << 8 | b`` stand side by side in some token or character.
        starts: int32[size + 1]: gets where words begin, from 0.

    Returns:
        How many words.
    """
    starts[0] = 0
    count = 1
    for i in range(start + 1, start + size):
        starts[count] = i - start
        count += 1 - joined[(np.int64(data[i - 1]) << 8) | np.int64(data[i])]
    return count
