"""The words of a text, stretch by stretch: many at a time where they are short, one at a time where they are not."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.flow.kernels import borrowing
from headrace.tokens.case_classes import UPPER, case_classes
from headrace.tokens.o200k import (
    O200K,
    O200K_PATTERN,
    TEKKEN,
    TEKKEN_PATTERN,
    o200k_codes,
    o200k_end,
    o200k_rules,
    o200k_words,
)
from headrace.tokens.split_patterns import (
    CL100K_PATTERN,
    DIGITS,
    GPT2,
    GPT2_PATTERN,
    LLAMA3,
    LLAMA3_PATTERN,
    QWEN2_PATTERN,
    digits_end,
    gpt2_end,
    llama3_end,
)
from headrace.tokens.unicode_classes import code_point_classes, digits_classes
from headrace.tokens.word_ends import byte_codes, cut_words, encode_bytes, is_space, pattern_words, window_rules

KNOWN: dict[str, tuple[int, int]] = {
    GPT2_PATTERN: (GPT2, 0),
    LLAMA3_PATTERN: (LLAMA3, 3),
    CL100K_PATTERN: (LLAMA3, 3),
    QWEN2_PATTERN: (LLAMA3, 1),
    O200K_PATTERN: (O200K, 3),
    TEKKEN_PATTERN: (TEKKEN, 1),
}
"""Pattern -> its scanner, and how many digits at most stand together (0 is any number)."""

CUTS = 5
"""Code of the scanner that cuts between bytes which stand side by side in no token, after those of the patterns."""

# A contraction has 4 bytes at most, so what begins later may not be seen to its end.
_AHEAD = 4


class Scanner(NamedTuple):
    """How texts are cut into words.

    Attributes:
        kind: GPT2, LLAMA3, DIGITS, O200K, TEKKEN or CUTS.
        digits: how many digits at most stand together (LLAMA3, O200K, TEKKEN).
        classes: uint8[0x110000], the class of each code point.
        joined: uint8[65536], 0 or 1: whether bytes ``a << 8 | b`` stand side by side in some token or character (CUTS).
        ascii_codes: uint8[128], from ``byte_codes``.
        rules: uint8[65536], from ``window_rules``.
        stretch: bytes that are looked at together.
    """

    kind: int
    digits: int
    classes: np.ndarray
    joined: np.ndarray
    ascii_codes: np.ndarray
    rules: np.ndarray
    stretch: int


# Bytes whose words are found together; what that takes, 7 bytes for each, stays in the first-level cache.
_STRETCH = 4096


def pattern_scanner(kind: int, digits: int, stretch: int = _STRETCH) -> Scanner:
    """The scanner of a split pattern; see :data:`KNOWN`."""
    none = np.zeros(0, dtype=np.uint8)
    if kind in (O200K, TEKKEN):
        classes = case_classes()
        return Scanner(kind, digits, classes, none, o200k_codes(classes), o200k_rules(kind), stretch)
    classes = digits_classes() if kind == DIGITS else code_point_classes()
    return Scanner(kind, digits, classes, none, byte_codes(kind), window_rules(kind), stretch)


def cuts_scanner(joined: np.ndarray) -> Scanner:
    """The scanner that cuts between bytes; ``joined`` as in :class:`Scanner`."""
    none = np.zeros(0, dtype=np.uint8)
    return Scanner(CUTS, 0, code_point_classes(), joined, none, none, _STRETCH)


class Scratch(NamedTuple):
    """Room for one stretch.

    Attributes:
        codes: uint8[stretch + 2].
        starts: int32[stretch + 1]: where words begin and, after them, where the last one ends.
    """

    codes: np.ndarray
    starts: np.ndarray


@borrowing
def next_words(data: np.ndarray, start: int, end: int, scanner: Scanner, scratch: Scratch) -> int:
    """Find the words at the beginning of what is left of a text.

    Args:
        data: uint8, valid UTF-8.
        start: where a word begins.
        end: where the text ends.
        scanner: the rules.
        scratch: gets, in ``starts``, where words begin, counted from ``start``, and where the last of them ends.

    Returns:
        How many words, at least one.
    """
    size = min(end - start, scanner.stretch)
    starts, codes = scratch.starts, scratch.codes
    if scanner.kind == CUTS:
        count = cut_words(data, start, size, scanner.joined, starts)
    else:
        encode_bytes(data, start, start + size, scanner.ascii_codes, scanner.classes, codes)
        if scanner.kind in (O200K, TEKKEN):
            suffix = scanner.kind == O200K
            rules, classes = scanner.rules, scanner.classes
            count = o200k_words(data, start, codes, size, rules, classes, scanner.digits, suffix, starts)
        else:
            fold = 0x20 if scanner.kind == LLAMA3 else 0
            count = pattern_words(data, start, codes, size, scanner.rules, fold, scanner.digits, starts)
    starts[count] = size
    if start + size == end:
        return count
    if scanner.kind == CUTS:
        count -= 1
    else:
        # What depends on text beyond the stretch: its last bytes, and white space cut within, which may go on.
        while count > 0 and (starts[count] > size - _AHEAD or _within_space(codes, starts[count])):
            count -= 1
        # Upper case may go with what is before it, for what is after it.
        if count > 0 and codes[starts[count] + 1] == UPPER:
            count -= 1
    if count > 0:
        return count
    starts[1] = one_word(data, start, end, scanner) - start
    return 1


@borrowing
def _within_space(codes: np.ndarray, at: int) -> bool:
    return is_space(codes[at]) and is_space(codes[at + 1])


@borrowing
def one_word(data: np.ndarray, start: int, end: int, scanner: Scanner) -> int:
    """Where the word that begins at a byte ends, of a text that ends at ``end``."""
    if scanner.kind == GPT2:
        return gpt2_end(data, start, end, scanner.classes)
    if scanner.kind in (O200K, TEKKEN):
        return o200k_end(data, start, end, scanner.classes, scanner.digits, scanner.kind == O200K)
    if scanner.kind == DIGITS:
        return digits_end(data, start, end, scanner.classes)
    if scanner.kind != CUTS:
        return llama3_end(data, start, end, scanner.classes, scanner.digits)
    start += 1
    while start < end and scanner.joined[(np.int64(data[start - 1]) << 8) | np.int64(data[start])]:
        start += 1
    return start
