"""What the running Python knows of every code point, as tables that kernels look up: classes and lower case.

The tables come from ``str`` methods themselves, so that a kernel and the plain expression cannot disagree; they change
with the version of Unicode that Python carries, which is why steps that use them name :data:`UNICODE` in their params.
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
SPACE = 4  # str.isspace, which is what str.split, str.strip and the expression \s go by
BREAK = 8  # ends a line for str.splitlines
PUNCTUATION = 16  # one of the 32 ASCII marks of string.punctuation
WIDENS = 32  # one code point whose lower case is two: U+0130 only

LAST = 0x10FFFF
DOTTED_I = 0x0130  # its lower case is "i" and U+0307
DOT_ABOVE = 0x0307


def every_character() -> str:
    """All code points in order, surrogates too: a twentieth of the time of joining what ``chr`` gives."""
    return np.arange(LAST + 1, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")


@lru_cache(maxsize=1)
def classes() -> npt.NDArray[np.uint8]:
    """The classes of each code point: uint8[0x110000], a sum of the constants above."""
    table = np.zeros(LAST + 1, dtype=np.uint8)
    every = every_character()
    # Expressions find the few that matter: a tenth of the time of asking each of a million characters.
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
    """The lower case of each code point by itself: int32[0x110000].

    It is ``str.lower`` of the single character: a final sigma needs no look at its neighbours. U+0130 holds its first
    code point only, "i"; the combining dot that follows is left to the caller.
    """
    every = every_character().replace(chr(DOTTED_I), "i")
    # A sigma between letters has one lower case only; alone among other code points it would be looked at in context.
    lowered = every.replace("\u03a3", "\u03c3").lower()
    return np.frombuffer(lowered.encode("utf-32-le", "surrogatepass"), dtype="<i4").astype(np.int32)


@inlined
def decode(data: npt.NDArray[np.uint8], i: int) -> tuple[np.int64, int]:
    """The code point that starts at byte ``i`` of valid UTF-8, and the byte after it."""
    at = np.uint64(i)  # signed places are tested for negative ones
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
