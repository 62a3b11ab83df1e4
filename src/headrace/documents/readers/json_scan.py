"""Split a large JSON text into elements in one pass over the bytes that tracks only strings and brackets."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from headrace.documents.readers.streams import Damaged, Held
from headrace.flow.kernels import kernel

DEPTH, IN_STRING, ESCAPED = 0, 1, 2
"""Indices into the scanner's state: int64[3], initially zero."""


@kernel
def separators(data: np.ndarray, state: np.ndarray, array: bool, out: np.ndarray) -> int:
    """Find where elements end.

    Args:
        data: uint8[n], the next block of the text.
        state: int64[3], carried over from block to block.
        array: whether the text is one array, whose elements end at commas of depth 1 and at the last bracket; otherwise
            it is a series of objects, each ending at the brace that returns to depth 0.
        out: int64[n], filled with results.

    Returns:
        How many entries of ``out`` are filled: positions of the commas and the last bracket (array), or of the closing
        braces (objects).
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


def pieces(chunks: Iterator[bytes], array: bool, room: int, size: int = 0) -> Iterator[tuple[bytes, bool]]:
    """Split into elements.

    Args:
        chunks: the text after the opening bracket of an array (or object), or concatenated objects.
        array: which of the two it is.
        room: maximum bytes of an element to hold; a larger one becomes an :class:`Overlong`.
        size: bytes of the file, which give the loss if it is damaged.

    Yields:
        (bytes of an element, whether the array ends after it).

    Raises:
        Damaged: the text ends within an element or continues after the array.
    """
    state = np.zeros(3, dtype=np.int64)
    state[DEPTH] = array
    out = np.empty(0, dtype=np.int64)
    held = Held(room)
    closed = False
    before = behind = 0
    for chunk in chunks:
        if closed:
            behind += len(chunk.strip())
            continue
        if len(out) < len(chunk):
            out = np.empty(len(chunk), dtype=np.int64)
        found = separators(np.frombuffer(chunk, dtype=np.uint8), state, array, out)
        closed = bool(array and state[DEPTH] == 0)
        start = 0
        for i, position in enumerate(out[:found].tolist()):
            held.add(chunk[start : position + (not array)])
            yield held.take(), closed and i == found - 1
            start = position + 1
        before += len(chunk)
        if closed:
            behind += len(chunk[start:].strip())
        else:
            held.add(chunk[start:])
    if behind:
        raise Damaged("text follows the end of the array", size * behind // (before + behind))
    rest = held.take()
    if (array and not closed) or rest.strip():
        error = Damaged("the array is not closed" if array else "the last object is not closed", size)
        error.unfinished = rest
        raise error
