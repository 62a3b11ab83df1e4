"""What the running Python knows about each code point, as lookup tables for kernels: classes and lower case.

The tables come from ``str`` methods, so a kernel and the equivalent Python expression cannot disagree. They depend on
Python's Unicode version, so steps that use them include :data:`UNICODE` in their params.
"""

from __future__ import annotations

import re
import string
import unicodedata
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from headrace.flow.kernels import inlined, kernel

UNICODE = unicodedata.unidata_version

ALPHANUMERIC = 1  # str.isalnum
ALPHABETIC = 2  # str.isalpha
SPACE = 4  # str.isspace, which also defines str.split, str.strip and the regular expression \s
BREAK = 8  # ends a line in str.splitlines
PUNCTUATION = 16  # one of the 32 ASCII characters of string.punctuation
WIDENS = 32  # its lower case is two code points: U+0130 only

LAST = 0x10FFFF
DOTTED_I = 0x0130  # its lower case is "i" and U+0307
DOT_ABOVE = 0x0307


def every_character() -> str:
    """All code points in order, including surrogates: takes a twentieth of the time of joining ``chr`` calls."""
    return np.arange(LAST + 1, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")


@lru_cache(maxsize=1)
def classes() -> npt.NDArray[np.uint8]:
    """The classes of each code point: uint8[0x110000], a sum of the constants above."""
    table = np.zeros(LAST + 1, dtype=np.uint8)
    every = every_character()
    # Regular expressions find the few that matter: a tenth of the time of asking each of a million characters.
    for run in re.finditer(r"[^\W_]+", every):
        alphabetic = np.fromiter(map(str.isalpha, run[0]), dtype=np.uint8, count=len(run[0]))
        table[run.start() : run.end()] = ALPHANUMERIC | ALPHABETIC * alphabetic
    for space in re.finditer(r"\s", every):
        ends_line = len(f"a{space[0]}b".splitlines()) == 2
        table[space.start()] = SPACE | BREAK if ends_line else SPACE
    for char in string.punctuation:
        table[ord(char)] |= PUNCTUATION
    table[DOTTED_I] |= WIDENS
    return table


@lru_cache(maxsize=1)
def lower_case() -> npt.NDArray[np.int32]:
    """The lower case of each code point on its own: int32[0x110000].

    It is ``str.lower`` of the single character, without the context that a final sigma would need. U+0130 has only its
    first code point, "i"; the combining dot that follows is left to the caller.
    """
    every = every_character().replace(chr(DOTTED_I), "i")
    # In context, a sigma may be final, so code points are lowercased in a string where none is.
    lowered = every.replace("\u03a3", "\u03c3").lower()
    return np.frombuffer(lowered.encode("utf-32-le", "surrogatepass"), dtype="<i4").astype(np.int32)


@inlined
def decode(data: npt.NDArray[np.uint8], i: int) -> tuple[np.int64, int]:
    """The code point that starts at byte ``i`` of valid UTF-8, and the position after it."""
    at = np.uint64(i)  # signed positions are tested for being negative
    first = np.int64(data[at])
    if first < 0x80:
        return first, i + 1
    if first < 0xE0:
        return (first & 0x1F) << 6 | np.int64(data[at + np.uint64(1)]) & 0x3F, i + 2
    second = np.int64(data[at + np.uint64(1)]) & 0x3F
    third = np.int64(data[at + np.uint64(2)]) & 0x3F
    if first < 0xF0:
        return (first & 0x0F) << 12 | second << 6 | third, i + 3
    return (first & 0x07) << 18 | second << 12 | third << 6 | np.int64(data[at + np.uint64(3)]) & 0x3F, i + 4


@kernel
def count_characters(data: npt.NDArray[np.uint8], start: int, end: int) -> np.int64:
    """Code points in the bytes from ``start`` to ``end`` of valid UTF-8."""
    count = np.int64(0)
    for i in range(start, end):
        count += np.int64((data[i] & 0xC0) != 0x80)
    return count
