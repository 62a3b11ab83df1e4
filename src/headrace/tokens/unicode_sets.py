r"""The character sets that a split pattern may name: ``\p{L}``, ``\p{Han}``, ``\s`` and so on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from headrace.tokens import unicode_ranges as ranges

CODE_POINTS = 0x110000


def listed(spans: str) -> np.ndarray:
    """bool[0x110000]: the code points of space-separated ``LOW``, ``LOW-HIGH`` and ``LOW-HIGH/STEP``, in
    hexadecimal."""
    out = np.zeros(CODE_POINTS, dtype=bool)
    for span in spans.split():
        bounds, _, step = span.partition("/")
        low, _, high = bounds.partition("-")
        out[int(low, 16) : int(high or low, 16) + 1 : int(step or 1)] = True
    return out


def white_space() -> np.ndarray:
    r"""The characters of ``\s``: White_Space, which unlike ``str.isspace`` excludes U+001C to U+001F."""
    return listed(ranges.WHITE_SPACE)


def numeric() -> np.ndarray:
    """The characters of the library's ``Digits``."""
    return listed(ranges.NUMBERS) | listed(ranges.LATE_NUMBERS)


def property_set(name: str) -> np.ndarray | None:
    r"""The characters of ``\p{name}``, or None if there is no table for it.

    Args:
        name: a general category or a script's short name; case, spaces, hyphens and underscores are ignored.
    """
    make = PROPERTIES.get(name.lower().replace(" ", "").replace("_", "").replace("-", ""))
    return make() if make is not None else None


PROPERTIES: dict[str, Callable[[], np.ndarray]] = {
    "l": lambda: listed(ranges.LETTERS),
    "lu": lambda: listed(ranges.UPPER_AND_TITLE) & ~listed(ranges.TITLE),
    "ll": lambda: listed(ranges.LOWER),
    "lt": lambda: listed(ranges.TITLE),
    "lm": lambda: listed(ranges.MODIFIERS),
    "lo": lambda: (
        listed(ranges.LETTERS) & ~listed(ranges.UPPER_AND_TITLE) & ~listed(ranges.LOWER) & ~listed(ranges.MODIFIERS)
    ),
    "n": lambda: listed(ranges.NUMBERS),
    "nd": lambda: listed(ranges.DECIMALS),
    "m": lambda: listed(ranges.MARKS),
    "p": lambda: listed(ranges.PUNCTUATION),
    "s": lambda: listed(ranges.SYMBOLS),
    "han": lambda: listed(ranges.HAN),
}
