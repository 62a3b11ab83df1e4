"""The words of a text, stretch by stretch: many at a time where they are short, one at a time where they are not."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.flow.kernels import borrowing
from headrace.tokens.split_patterns import DIGITS, GPT2, LLAMA3, digits_end, gpt2_end, llama3_end
from headrace.tokens.word_ends import cut_words, encode_bytes, is_space, pattern_words

CUTS = 3
"""Code of the scanner that cuts between bytes which stand side by side in no token, after those of the patterns."""

# A contraction has 4 bytes at most, so what begins later may not be seen to its end.
_AHEAD = 4


class Scanner(NamedTuple):
    """How texts are cut into words.

    Attributes:
        kind: GPT2, LLAMA3, DIGITS or CUTS.
        digits: how many digits at most stand together (LLAMA3).
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
        fold = 0x20 if scanner.kind == LLAMA3 else 0
        count = pattern_words(data, start, codes, size, scanner.rules, fold, scanner.digits, starts)
    starts[count] = size
    if start + size == end:
        return count
    if scanner.kind == CUTS:
        count -= 1
    else:
        # What depends on text beyond the stretch: its last bytes, and white space that may go on.
        while count > 0 and (starts[count] > size - _AHEAD or is_space(codes[starts[count]])):
            count -= 1
    if count > 0:
        return count
    starts[1] = one_word(data, start, end, scanner) - start
    return 1


@borrowing
def one_word(data: np.ndarray, start: int, end: int, scanner: Scanner) -> int:
    """Where the word that begins at a byte ends, of a text that ends at ``end``."""
    if scanner.kind == GPT2:
        return gpt2_end(data, start, end, scanner.classes)
    if scanner.kind == DIGITS:
        return digits_end(data, start, end, scanner.classes)
    if scanner.kind != CUTS:
        return llama3_end(data, start, end, scanner.classes, scanner.digits)
    start += 1
    while start < end and scanner.joined[(np.int64(data[start - 1]) << 8) | np.int64(data[start])]:
        start += 1
    return start
