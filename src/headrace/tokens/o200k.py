r"""The split patterns of GPT-4o's kind (o200k_base), which cut words where the case changes.

A word of letters is upper case, then lower case, either of which may be left out; letters without case and marks are
both. So a word ends before an upper-case letter that follows a lower-case one, and goes on with one that follows a
letter without case only if letters that are not upper case follow it in turn. As a mark may stand in the place of a
letter, of the sign before a word, and among signs, words with marks are taken one at a time.
"""

from __future__ import annotations

import numpy as np

from headrace.flow.kernels import borrowing
from headrace.tokens.case_classes import LOWER, MARK, UPPER
from headrace.tokens.split_patterns import blank_end, class_at, code_point, contraction, number_end, run_end
from headrace.tokens.unicode_classes import LETTER, NUMBER, OTHER, SPACE
from headrace.tokens.word_ends import BEGIN, BLANK, CLASS_OF, CODES, INNER, LINE_END, LOOK, NEW, QUOTE, SAME

_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+SUFFIX"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*SUFFIX"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# GPT-4o's and gpt-oss's (tiktoken, o200k_base), which Llama 4 took over.
O200K_PATTERN = _CASED.replace("SUFFIX", "(?i:'s|'t|'re|'ve|'m|'ll|'d)?").replace(r"|\p{N}|", r"|\p{N}{1,3}|")
# Mistral's Tekken takes digits one by one and contractions apart.
TEKKEN_PATTERN = _CASED.replace("SUFFIX", "")

O200K, TEKKEN = 3, 4
"""Codes of the scanners, after those of ``split_patterns``."""

_SPACE, _CR, _LF, _QUOTE, _SLASH = 0x20, 0x0D, 0x0A, 0x27, 0x2F
_SIGN_SLASH = 14  # code of a byte, between those of case_classes


@borrowing
def _lower_end(data: np.ndarray, at: int, end: int, classes: np.ndarray) -> int:
    """The end of letters that are upper case, then one or more that are lower; ``at`` if there are none such."""
    least = at  # after the last that may be lower case
    while at < end:
        point, size = code_point(data, at)
        kind = classes[point]
        if kind == LOWER:
            while at < end and class_at(data, at, end, classes) in (LOWER, LETTER, MARK):
                at += code_point(data, at)[1]
            return at
        if kind not in (UPPER, LETTER, MARK):
            break
        at += size
        if kind != UPPER:
            least = at
    return least


@borrowing
def o200k_end(data: np.ndarray, at: int, end: int, classes: np.ndarray, digits: int, suffix: bool) -> int:
    """Where the match of GPT-4o's pattern ends, or of Tekken's.

    Args:
        data: uint8, valid UTF-8.
        at: where the match begins.
        end: where the text ends.
        classes: :func:`headrace.tokens.case_classes.case_classes`.
        digits: how many digits at most stand together.
        suffix: whether a contraction goes with the letters before it.
    """
    byte = data[at]
    point, size = code_point(data, at)
    kind = classes[point]
    if kind == NUMBER:
        return number_end(data, at, end, classes, digits)
    if byte != _CR and byte != _LF:
        first = at if kind in (UPPER, LOWER, LETTER) else at + size
        stop = _lower_end(data, first, end, classes)
        if stop == first and kind != MARK:  # a mark is a word of lower case before one of upper case alone
            stop = run_end(data, first, end, classes, UPPER)
        if stop > first or kind == MARK:
            return stop + (contraction(data, stop, end, 0x20) if suffix and stop < end and data[stop] == _QUOTE else 0)
        if kind == OTHER or (byte == _SPACE and class_at(data, first, end, classes) == OTHER):
            while first < end and class_at(data, first, end, classes) in (OTHER, MARK):
                first += code_point(data, first)[1]
            while first < end and data[first] in (_CR, _LF, _SLASH):
                first += 1
            return first
    return blank_end(data, at, end, classes)


def o200k_codes(ascii_classes: np.ndarray) -> np.ndarray:
    """uint8[128]: the code of each ASCII character, from its class."""
    out = ascii_classes[:128].copy()
    for char, code in ((" ", BLANK), ("'", QUOTE), ("/", _SIGN_SLASH), ("\n", LINE_END), ("\r", LINE_END)):
        out[ord(char)] = code
    return out


def o200k_rules(kind: int) -> np.ndarray:
    """uint8[65536]: whether a word begins at a byte, as ``window_rules``; LOOK takes the word before from its start."""
    out = np.zeros((CODES, CODES, CODES, CODES), dtype=np.uint8)
    for window in np.ndindex(*out.shape):
        earlier, before, here, _ = window
        if before == BEGIN:
            out[window] = NEW
        elif MARK in (earlier, before, here) or SPACE | INNER in (before, here):
            out[window] = LOOK
        elif not LETTER | INNER <= here <= OTHER | INNER:
            out[window] = _rule(kind, *window)
    return out.reshape(-1)


def _rule(kind: int, earlier: int, before: int, here: int, after: int) -> int:
    old, new = CLASS_OF[before], CLASS_OF[here]
    if new == SPACE and old == SPACE:
        plain = before != LINE_END and here != LINE_END
        return LOOK if not plain else SAME if CLASS_OF[after] == SPACE else NEW
    if new == SPACE:
        return LOOK if here == LINE_END and old == OTHER else NEW
    if new == NUMBER:
        return LOOK if old == NUMBER and kind == O200K else NEW
    if new == OTHER and old == LETTER:
        return LOOK if here == QUOTE and kind == O200K else NEW
    if new == OTHER:
        return LOOK if before == LINE_END and here == _SIGN_SLASH else SAME if old == OTHER or before == BLANK else NEW
    if old == OTHER:
        # A sign goes with the letters after it if it begins its word.
        begins = CLASS_OF[earlier] != OTHER and earlier != BLANK
        return LOOK if before == OTHER | INNER else SAME if begins else NEW
    if old == LETTER and here == UPPER:
        return NEW if before == LOWER else SAME if before == UPPER else LOOK
    return NEW if old == NUMBER or before == LINE_END else SAME


@borrowing
def o200k_words(
    data: np.ndarray, start: int, codes: np.ndarray, size: int, rules: np.ndarray, classes: np.ndarray, digits: int,
    suffix: bool, starts: np.ndarray,
) -> int:  # fmt: skip
    """Where words begin.

    Args:
        data: uint8.
        start: the first byte.
        codes: uint8[size + 2], from ``encode_bytes``.
        size: bytes.
        rules: from :func:`o200k_rules`.
        classes, digits, suffix: see :func:`o200k_end`.
        starts: int32[size + 1]: gets where words begin, from 0.

    Returns:
        How many words.
    """
    count, i = 0, 0
    window = np.int64(codes[0]) << 4 | np.int64(codes[1])
    while i < size:
        window = (window << 4 | np.int64(codes[i + 2])) & 0xFFFF
        rule = rules[window]
        starts[count] = i
        count += int(rule & 1)
        i += 1
        if rule >= LOOK:
            end = o200k_end(data, start + starts[count - 1], start + size, classes, digits, suffix)
            i = min(end - start, size)  # the last character may go on beyond
            window = np.int64(BEGIN) << 4 | np.int64(codes[i + 1])
    return count
