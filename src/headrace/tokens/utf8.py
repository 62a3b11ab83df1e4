"""Characters of UTF-8."""

from __future__ import annotations

import numpy as np

from headrace.flow.kernels import borrowing


@borrowing
def code_point(data: np.ndarray, at: int) -> tuple[int, int]:
    """The code point that starts at a byte, and its length in bytes; the text must be valid UTF-8."""
    lead = int(np.int64(data[at]))
    if lead < 0x80:
        return lead, 1
    if lead < 0xE0:
        return ((lead & 0x1F) << 6) | (int(np.int64(data[at + 1])) & 0x3F), 2
    middle = (int(np.int64(data[at + 1])) & 0x3F) << 6 | (int(np.int64(data[at + 2])) & 0x3F)
    if lead < 0xF0:
        return ((lead & 0x0F) << 12) | middle, 3
    return ((lead & 0x07) << 18) | (middle << 6) | (int(np.int64(data[at + 3])) & 0x3F), 4
