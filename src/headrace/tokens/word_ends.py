"""Where a stretch of text falls apart into words, byte by byte by a table.

A scanner that follows one word after the other guesses wrong at nearly every word's end, which on today's processors
costs more than all else. But whether a match of these split patterns begins at a byte depends, in nearly every case,
on what kind of byte it, the two before it and the one after it are. So each byte gets a code of four bits, a table
over four codes says whether a word begins there, and that is added to the number of words without a branch. The rest
of the cases are marked in the table and looked at one by one: line ends within white space and after signs, white
space of several bytes, letters after a sign of several bytes, numbers within numbers, and apostrophes.

A match never looks back, so a stretch may begin at any word's beginning.
"""

from __future__ import annotations

import numpy as np

from headrace.flow.kernels import borrowing
from headrace.tokens.split_patterns import DIGITS, GPT2, LLAMA3, code_point, contraction
from headrace.tokens.unicode_classes import LETTER, NUMBER, OTHER, SPACE, code_point_classes

# Codes of bytes: the classes of characters 0 to 3; then U+0020, CR and LF, the apostrophe, and what stands before a
# word that begins whatever comes; and with bit 8 the class of a character of which this is not the first byte.
BLANK, LINE_END, QUOTE, BEGIN, INNER = 4, 5, 6, 7, 8
_KNOWN_CODES = 12
# Those from 12 on are of patterns that tell more characters apart: upper case, lower case, a slash, a mark.
CODES = 16
CLASS_OF = np.array(
    [LETTER, NUMBER, SPACE, OTHER, SPACE, SPACE, OTHER, NUMBER, LETTER, NUMBER, SPACE, OTHER,
     LETTER, LETTER, OTHER, OTHER], dtype=np.uint8,
)  # fmt: skip

SAME, NEW, LOOK = 0, 1, 2  # no word begins; a word begins; the case must be looked at (may be added to NEW)


def byte_codes(kind: int) -> np.ndarray:
    """uint8[128]: the code of each ASCII character; only Llama 3's patterns name line ends."""
    out = code_point_classes()[:128].copy()
    out[ord(" ")] = BLANK
    out[ord("'")] = QUOTE
    if kind == LLAMA3:
        out[[ord("\n"), ord("\r")]] = LINE_END
    return out


def window_rules(kind: int) -> np.ndarray:
    """uint8[65536]: whether a word begins at a byte: by four codes of 4 bits, two before, its own and the next."""
    rule = {GPT2: _gpt2_rule, LLAMA3: _llama3_rule, DIGITS: _digits_rule}[kind]
    out = np.zeros((CODES, CODES, CODES, CODES), dtype=np.uint8)
    for window in np.ndindex(*[_KNOWN_CODES] * 4):
        earlier, before, here, after = window
        if before == BEGIN:
            out[window] = NEW
        elif kind == DIGITS and CLASS_OF[here] == CLASS_OF[before] == SPACE and CLASS_OF[after] == NUMBER:
            pass  # white space before a number stays together
        elif CLASS_OF[here] == SPACE and CLASS_OF[before] == SPACE:
            # The last character of white space goes with what follows it.
            plain = before != LINE_END and here in (SPACE, BLANK)
            out[window] = (SAME if CLASS_OF[after] == SPACE else NEW) if plain else LOOK
        elif not here & INNER:
            out[window] = rule(earlier, before, here)
        if out[window] == NEW and here == QUOTE:
            out[window] |= LOOK
    return out.reshape(-1)


def _gpt2_rule(earlier: int, before: int, here: int) -> int:
    if CLASS_OF[here] == SPACE:
        return NEW
    return SAME if before == BLANK or CLASS_OF[before] == CLASS_OF[here] else NEW


def _digits_rule(earlier: int, before: int, here: int) -> int:
    return NEW if NUMBER in (CLASS_OF[before], CLASS_OF[here]) else _gpt2_rule(earlier, before, here)


def _llama3_rule(earlier: int, before: int, here: int) -> int:
    old, kind = CLASS_OF[before], CLASS_OF[here]
    if kind == LETTER and old == OTHER:
        # A sign goes with the letters after it if it begins its word.
        begins = CLASS_OF[earlier] != OTHER and earlier != BLANK
        return LOOK if before & INNER else SAME if begins else NEW
    if kind == LETTER:
        return NEW if old == NUMBER or before == LINE_END else SAME
    if kind == NUMBER:
        return LOOK if old == NUMBER else NEW
    if kind == OTHER:
        return SAME if old == OTHER or before == BLANK else NEW
    return LOOK if here == LINE_END and old == OTHER else NEW


@borrowing
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
    codes[0] = BEGIN
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
            codes[k + shift] = kind | INNER
        i += size


@borrowing
def is_space(code: int) -> bool:
    """Whether a code is of white space."""
    return bool(CLASS_OF[code] == SPACE)


@borrowing
def _space_begins(codes: np.ndarray, size: int, i: int, taken: int) -> bool:
    """Whether a word begins at byte ``i``, white space after white space; ``taken``: the last line end of signs.

    White space goes up to its last line end, then up to its last character, which goes with what follows.
    """
    before, here, after = codes[i], codes[i + 1], codes[i + 2]
    if taken == i - 1:
        return True
    if before == LINE_END:
        k = i + 1
        while k <= size and CLASS_OF[codes[k]] == SPACE and codes[k] != LINE_END:
            k += 1
        if k > size or codes[k] != LINE_END:
            return True
    return here != LINE_END and CLASS_OF[after] != SPACE


@borrowing
def _sign_begins(codes: np.ndarray, i: int) -> bool:
    """Whether the sign that ends before byte ``i`` is the first of its word."""
    while codes[i] & INNER:
        i -= 1
    return CLASS_OF[codes[i - 1]] != OTHER and codes[i - 1] != BLANK


@borrowing
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
        rules: from :func:`window_rules`.
        fold: 0x20 where the case of contractions is ignored, else 0.
        digits: how many digits at most stand together; matters where the rules say so.
        starts: int32[size + 1]: gets where words begin, from 0.

    Returns:
        How many words.
    """
    count, i = 0, 0
    taken = number = int(np.int64(-2))  # last line end that goes with signs; last byte of a counted number
    together = 0  # of how many
    window = np.int64(codes[0]) << 4 | np.int64(codes[1])
    while i < size:
        window = (window << 4 | np.int64(codes[i + 2])) & 0xFFFF
        rule = rules[window]
        starts[count] = i
        count += int(rule & 1)
        i += 1
        if rule < LOOK:
            continue
        at = i - 1
        kind = CLASS_OF[codes[at + 1]]
        if rule & NEW:
            more = contraction(data, start + at, start + size, fold)
            if more:
                i = at + more
                codes[i] = BEGIN
                window = np.int64(BEGIN) << 4 | np.int64(codes[i + 1])
        elif kind == NUMBER:
            together = together + 1 if number == at - 1 else 2
            number = at + code_point(data, start + at)[1] - 1
            if together > digits:
                together = 1
                count += 1
        elif kind == LETTER:
            count += not _sign_begins(codes, at)
        elif CLASS_OF[codes[at]] == OTHER or (taken == at - 1 and codes[at + 1] == LINE_END):
            taken = at
        elif _space_begins(codes, size, at, taken):
            while codes[at + 1] & INNER:
                at -= 1
            if starts[count - 1] != at:
                starts[count] = at
                count += 1
    return count


@borrowing
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
        count += 1 - int(joined[(np.int64(data[i - 1]) << 8) | np.int64(data[i])])
    return count
