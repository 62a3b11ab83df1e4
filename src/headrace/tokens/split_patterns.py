"""The split patterns of byte-level tokenizers as scanners: where the match that begins at a byte ends.

A regular expression engine tries each alternative at each place and backtracks. Every alternative of these patterns
is a run of one class of character with at most one character before it and one look at what follows, so the match
can be had in one pass without going back. Every character is in some alternative, so matches follow each other
without gaps.
"""

from __future__ import annotations

import numpy as np

from headrace.flow.kernels import borrowing
from headrace.tokens.unicode_classes import LETTER, NUMBER, OTHER, SPACE

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
# GPT-4's (cl100k_base), as its converted tokenizers spell it, possessively or not; Qwen 2's takes digits one by one.
CL100K_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]"
    r"|\s+(?!\S)|\s+"
)
QWEN2_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")

GPT2, LLAMA3, DIGITS = 0, 1, 2
"""Codes of the scanners; the last is GPT-2's pattern between numbers, each of which stands alone."""

_SPACE, _QUOTE, _CR, _LF = 0x20, 0x27, 0x0D, 0x0A
_LONG_S = (0xC5, 0xBF)  # U+017F, which is an s where case is ignored


@borrowing
def code_point(data: np.ndarray, at: int) -> tuple[int, int]:
    """The character that begins at a byte and how many bytes it has; the text must be valid UTF-8."""
    lead = int(np.int64(data[at]))
    if lead < 0x80:
        return lead, 1
    if lead < 0xE0:
        return ((lead & 0x1F) << 6) | (int(np.int64(data[at + 1])) & 0x3F), 2
    middle = (int(np.int64(data[at + 1])) & 0x3F) << 6 | (int(np.int64(data[at + 2])) & 0x3F)
    if lead < 0xF0:
        return ((lead & 0x0F) << 12) | middle, 3
    return ((lead & 0x07) << 18) | (middle << 6) | (int(np.int64(data[at + 3])) & 0x3F), 4


@borrowing
def run_end(data: np.ndarray, at: int, end: int, classes: np.ndarray, kind: int) -> int:
    """Where the run of characters of one class ends that begins at or before ``at``."""
    while at < end:
        byte = data[at]
        if byte < 0x80:
            if classes[byte] != kind:
                break
            at += 1
        else:
            point, size = code_point(data, at)
            if classes[point] != kind:
                break
            at += size
    return at


@borrowing
def class_at(data: np.ndarray, at: int, end: int, classes: np.ndarray) -> int:
    """The class of the character at a byte; white space at the end of the text."""
    if at >= end:
        return SPACE
    byte = data[at]
    if byte < 0x80:
        return int(np.int64(classes[byte]))
    return int(np.int64(classes[code_point(data, at)[0]]))


@borrowing
def _before_last(data: np.ndarray, start: int, at: int, end: int) -> int:
    r"""The end of ``\s+(?!\S)|\s+`` for a run of white space: its last character is left to what follows."""
    if at == end:
        return at
    last = at - 1
    while (data[last] & 0xC0) == 0x80:
        last -= 1
    return at if last == start else last


@borrowing
def contraction(data: np.ndarray, at: int, end: int, fold: int) -> int:
    """The bytes of 's, 't, 're, 've, 'm, 'll or 'd at a quote, or 0; ``fold`` is 0x20 where case is ignored, else 0."""
    if at + 1 >= end:
        return 0
    first = data[at + 1] | fold
    if first in (0x73, 0x74, 0x6D, 0x64):  # s t m d
        return 2
    if at + 2 >= end:
        return 0
    second = data[at + 2] | fold
    if second == 0x65 and (first in (0x72, 0x76)):  # re ve
        return 3
    if first == 0x6C and second == 0x6C:
        return 3
    if fold and data[at + 1] == _LONG_S[0] and data[at + 2] == _LONG_S[1]:
        return 3
    return 0


@borrowing
def gpt2_end(data: np.ndarray, at: int, end: int, classes: np.ndarray) -> int:
    """Where the match of GPT-2's pattern ends.

    Args:
        data: uint8, valid UTF-8.
        at: where the match begins.
        end: where the text ends.
        classes: :func:`headrace.tokens.unicode_classes.code_point_classes`.
    """
    byte = data[at]
    if byte == _QUOTE:
        size = contraction(data, at, end, 0)
        if size:
            return at + size
    start = at
    if byte == _SPACE:
        at += 1
    kind = class_at(data, at, end, classes)
    if kind != SPACE:
        return run_end(data, at, end, classes, kind)
    return _before_last(data, start, run_end(data, at, end, classes, SPACE), end)


@borrowing
def digits_end(data: np.ndarray, at: int, end: int, classes: np.ndarray) -> int:
    """Where the match of GPT-2's pattern ends if text is first taken apart into single numbers and all between them.

    Args:
        data: uint8, valid UTF-8.
        at: where the match begins.
        end: where the text ends.
        classes: :func:`headrace.tokens.unicode_classes.digits_classes`.
    """
    point, size = code_point(data, at)
    if classes[point] == NUMBER:
        return at + size
    if classes[point] == SPACE and class_at(data, at + size, end, classes) in (SPACE, NUMBER):
        # What lies between two numbers ends like a text.
        stop = run_end(data, at, end, classes, SPACE)
        return stop if class_at(data, stop, end, classes) == NUMBER else _before_last(data, at, stop, end)
    return gpt2_end(data, at, end, classes)


@borrowing
def number_end(data: np.ndarray, at: int, end: int, classes: np.ndarray, most: int) -> int:
    """Where a run of at most so many number characters ends."""
    for _ in range(most):
        if at >= end or class_at(data, at, end, classes) != NUMBER:
            break
        at += code_point(data, at)[1]
    return at


@borrowing
def blank_end(data: np.ndarray, start: int, end: int, classes: np.ndarray) -> int:
    r"""The end of ``\s*[\r\n]+|\s+(?!\S)|\s+``: after the run's last line end, if it has one."""
    at = run_end(data, start, end, classes, SPACE)
    last = at - 1
    while last >= start:
        if data[last] == _LF or data[last] == _CR:
            return last + 1
        last -= 1
    return _before_last(data, start, at, end)


@borrowing
def llama3_end(data: np.ndarray, at: int, end: int, classes: np.ndarray, digits: int) -> int:
    """Where the match of Llama 3's pattern ends, or of one that differs in the number of digits only.

    Args:
        data: uint8, valid UTF-8.
        at: where the match begins.
        end: where the text ends.
        classes: :func:`headrace.tokens.unicode_classes.code_point_classes`.
        digits: how many digits at most stand together.
    """
    byte = data[at]
    if byte == _QUOTE:
        size = contraction(data, at, end, 0x20)
        if size:
            return at + size
    point, size = code_point(data, at)
    kind = classes[point]
    if kind == LETTER:
        return run_end(data, at + size, end, classes, LETTER)
    if kind == NUMBER:
        return number_end(data, at, end, classes, digits)
    after = OTHER
    if byte != _LF and byte != _CR:
        after = class_at(data, at + size, end, classes)
        if after == LETTER:
            return run_end(data, at + size, end, classes, LETTER)
    if kind == OTHER or (byte == _SPACE and after == OTHER):
        at = run_end(data, at + size, end, classes, OTHER)
        while at < end and (data[at] == _LF or data[at] == _CR):
            at += 1
        return at
    return blank_end(data, at, end, classes)
