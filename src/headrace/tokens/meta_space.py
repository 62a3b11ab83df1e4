"""U+2581, which SentencePiece uses for a space (Kudo and Richardson 2018, 1808.06226)."""

from __future__ import annotations

import numpy as np

from headrace.flow.kernels import borrowing

META_SPACE = "\u2581"

_FIRST, _SECOND, _THIRD = META_SPACE.encode()
FIRST_BYTE = _FIRST
"""A text without this byte has none."""


@borrowing
def is_meta_space(data: np.ndarray, at: int, stop: int) -> bool:
    """Whether U+2581 starts at a byte of UTF-8 that ends before ``stop``."""
    return bool(data[at] == _FIRST and at + 2 < stop and data[at + 1] == _SECOND and data[at + 2] == _THIRD)
