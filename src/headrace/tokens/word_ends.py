"""Where a stretch of text falls apart into words, byte by byte by a table.

A scanner that follows one word after the other guesses wrong at nearly every word's end, which on today's processors
costs more than all else. But whether a match of these split patterns begins at a character depends, in nearly every
case, on the codes of that character and the one before it alone. So each byte gets a code, a table over pairs of
codes says whether a word begins there, and that is added to the number of words without a branch. The rest of the
cases are marked in the table and looked at one by one: white space within white space, line ends after signs, letters
after a sign, numbers within numbers, and apostrophes.

Line ends, spaces and apostrophes have bits of their own in the code, as the patterns name them. A match never looks
back, so a stretch may begin at any word's beginning.
"""

from __future__ import annotations

import numba
import numpy as np

from headrace.tokens.split_patterns import GPT2, code_point, contraction
from headrace.tokens.unicode_classes import LETTER, NUMBER, OTHER, SPACE, code_point_classes

_CLASS = 3  # mask of the class
_LINE_END, _BLANK, _QUOTE, _INNER = 4, 8, 16, 32  # CR or LF; U+0020; "'"; not the first byte of its character
_BEGIN = NUMBER | _LINE_END | _QUOTE  # no character's; stands for what is before a word that begins whatever comes
_CODES = 64

_SAME, _NEW, _LOOK = 0, 1, 2  # no word begins; a word begins; the case must be looked at (may be added to _NEW)


def byte_codes(kind: int) -> np.ndarray:
    """uint8[128]: the code of each ASCII character; only Llama 3's patterns name line ends."""
    out = code_point_classes()[:128].copy()
    out[ord(" ")] |= _BLANK
    out[ord("'")] |= _QUOTE
    if kind != GPT2:
        out[[ord("\n"), ord("\r")]] |= _LINE_END
    return out


def pair_rules(kind: int) -> np.ndarray:
    """uint8[64 * 64]: whether a word begins at a byte, by ``code before << 6 | code``; see the module's text."""
    rule = _gpt2_rule if kind == GPT2 else _llama3_rule
    out = np.zeros((_CODES, _CODES), dtype=np.uint8)
    for before in range(_CODES):
        for here in range(_CODES):
            if before == _BEGIN:
                out[before, here] = _NEW
            elif here & _CLASS == SPACE and before & _CLASS == SPACE:
                out[before, here] = _LOOK
            elif not here & _INNER:
                out[before, here] = rule(before, here)
            if out[before, here] == _NEW and here & _QUOTE:
                out[before, here] |= _LOOK
    return out.reshape(-1)


def _gpt2_rule(before: int, here: int) -> int:
    if here & _CLASS == SPACE:
        return _NEW
    return _SAME if before & _BLANK or before & _CLASS == here & _CLASS else _NEW


def _llama3_rule(before: int, here: int) -> int:
    old, kind = before & _CLASS, here & _CLASS
    if kind == LETTER:
        return {LETTER: _SAME, NUMBER: _NEW, SPACE: _NEW if before & _LINE_END else _SAME, OTHER: _LOOK}[old]
    if kind == NUMBER:
        return _LOOK if old == NUMBER else _NEW
    if kind == OTHER:
        return _SAME if old == OTHER or before & _BLANK else _NEW
    return _LOOK if here & _LINE_END and old == OTHER else _NEW


@numba.njit(cache=True, nogil=True)
def encode_bytes(
    data: np.ndarray, start: int, end: int, ascii_codes: np.ndarray, classes: np.ndarray, codes: np.ndarray
) -> None:
    """Write the code of each byte of ``data[start:end]`` to ``codes[1:]``, and what stands for the text's bounds.

    Args:
        data: uint8, valid UTF-8.
        start: the first byte, which begins a word.
        end: the byte after the last.
        ascii_codes: from :func:`byte_codes`.
        classes: uint8[0x110000], the class of each code point.
        codes: uint8[at least end - start + 2].
    """
    codes[0] = _BEGIN
    codes[end - start + 1] = SPACE  # at the text's end, white space ends as if more of it came
    i, shift = start, 1 - start
    while i < end:
        byte = data[i]
        if byte < 0x80:
            codes[i + shift] = ascii_codes[byte]
            i += 1
            continue
        point, size = code_point(data, i)
        kind = classes[point]
        codes[i + shift] = kind
        for k in range(i + 1, min(i + size, end)):
            codes[k + shift] = kind | _INNER
        i += size


@numba.njit(cache=True, nogil=True)
def _space_begins(codes: np.ndarray, size: int, i: int, taken: int) -> bool:
    """Whether a word begins at byte ``i``, white space after white space; ``taken``: the last line end of signs.

    White space goes up to its last line end, then up to its last character, which goes with what follows.
    """
    before, here, after = codes[i], codes[i + 1], codes[i + 2]
    if taken == i - 1:
        return True
    if before & _LINE_END:
        k = i + 1
        while k <= size and (codes[k] & _CLASS) == SPACE and not codes[k] & _LINE_END:
            k += 1
        if k > size or not codes[k] & _LINE_END:
            return True
    return not here & _LINE_END and (after & _CLASS) != SPACE


@numba.njit(cache=True, nogil=True)
def _sign_begins(codes: np.ndarray, i: int) -> bool:
    """Whether the sign that ends before byte ``i`` is the first of its word."""
    while codes[i] & _INNER:
        i -= 1
    before = codes[i - 1]
    return (before & _CLASS) != OTHER and not before & _BLANK


@numba.njit(cache=True, nogil=True)
def pattern_words(
    data: np.ndarray, start: int, codes: np.ndarray, size: int, rules: np.ndarray, fold: int, digits: int,
    starts: np.ndarray,
) -> int:  # fmt: skip
    """Where words begin in a split pattern.

    Args:
        data: uint8.
        start: the first byte.
        codes: uint8[size + 2], from :func:`encode_bytes`; changes.
        size: bytes.
        rules: from :func:`pair_rules`.
        fold: 0x20 where the case of contractions is ignored, else 0.
        digits: how many digits at most stand together; matters where the rules say so.
        starts: int32[size + 1]: gets where words begin, from 0.

    Returns:
        How many words.
    """
    count, i = 0, 0
    taken, number, together = (
        -2,
        -2,
        0,
    )  # last line end that goes with signs; last byte of a counted number; of how many
    while i < size:
        rule = rules[(np.int64(codes[i]) << 6) | np.int64(codes[i + 1])]
        starts[count] = i
        count += rule & 1
        i += 1
        if rule < _LOOK:
            continue
        at = i - 1
        kind = codes[at + 1] & _CLASS
        if rule & _NEW:
            more = contraction(data, start + at, start + size, fold)
            if more:
                i = at + more
                codes[i] = _BEGIN
        elif kind == NUMBER:
            together = together + 1 if number == at - 1 else 2
            number = at + code_point(data, start + at)[1] - 1
            if together > digits:
                together = 1
                count += 1
        elif kind == LETTER:
            count += not _sign_begins(codes, at)
        elif (codes[at] & _CLASS) == OTHER or (taken == at - 1 and codes[at + 1] & _LINE_END):
            taken = at
        elif _space_begins(codes, size, at, taken):
            while codes[at + 1] & _INNER:
                at -= 1
            if starts[count - 1] != at:
                starts[count] = at
                count += 1
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
