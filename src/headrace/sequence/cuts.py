"""Where fill-in-the-middle cuts a text: at uniformly chosen code points, found in UTF-8 without decoding."""

from __future__ import annotations

import numpy as np

from headrace.flow.kernels import kernel


@kernel
def character_cuts(data: np.ndarray, offsets: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Two cuts in each text, uniform over its code point boundaries, both ends included.

    Args:
        data: uint8[n_bytes], UTF-8.
        offsets: int64[n + 1].
        draws: float64[n, 2] in [0, 1).

    Returns:
        int64[n, 2]: byte positions in ``data``, ascending within each text.
    """
    out = np.empty((len(offsets) - 1, 2), dtype=np.int64)
    for i in range(len(offsets) - 1):
        start, end = offsets[i], offsets[i + 1]
        characters = 0
        for at in range(start, end):
            characters += (data[at] & 0xC0) != 0x80
        first = int(draws[i, 0] * (characters + 1))
        second = int(draws[i, 1] * (characters + 1))
        low, high = min(first, second), max(first, second)
        seen = 0
        out[i, 0] = end
        out[i, 1] = end
        for at in range(start, end):
            if (data[at] & 0xC0) != 0x80:
                if seen == low:
                    out[i, 0] = at
                if seen == high:
                    out[i, 1] = at
                    break
                seen += 1
    return out
