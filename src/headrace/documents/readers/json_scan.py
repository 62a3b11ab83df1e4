"""Where the elements of a big JSON text end: one pass over the bytes that follows strings and brackets only."""

from __future__ import annotations

import numpy as np

from headrace.flow.kernels import kernel

DEPTH, IN_STRING, ESCAPED = 0, 1, 2
"""Places in the scanner's state: int64[3], all zero at the beginning."""


@kernel
def separators(data: np.ndarray, state: np.ndarray, array: bool, out: np.ndarray) -> int:
    """Find where elements end.

    Args:
        data: uint8[n], the next block of the text.
        state: int64[3], carried from block to block.
        array: the text is one array, whose elements end at commas of depth 1 and at the last bracket; otherwise it
            is a row of objects, each of which ends at the brace that returns to depth 0.
        out: int64[n] for the results.

    Returns:
        How many entries of ``out`` are filled: the positions of the commas and the last bracket (array), or of the
        closing braces (objects).
    """
    depth, in_string, escaped = state[DEPTH], state[IN_STRING], state[ESCAPED]
    found = 0
    for i in range(data.shape[0]):
        c = data[i]
        if in_string:
            if escaped:
                escaped = 0
            elif c == 92:  # backslash
                escaped = 1
            elif c == 34:  # quote
                in_string = 0
        elif c == 34:
            in_string = 1
        elif c == 123 or c == 91:  # { [
            depth += 1
        elif c == 125 or c == 93:  # } ]
            depth -= 1
            if depth == 0:
                out[found] = i
                found += 1
                if array:
                    break
        elif c == 44 and array and depth == 1:  # comma
            out[found] = i
            found += 1
    state[DEPTH], state[IN_STRING], state[ESCAPED] = depth, in_string, escaped
    return found
