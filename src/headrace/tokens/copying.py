"""Copy pieces of text to where kernels read them, with the changes to spaces that SentencePiece models make."""

from __future__ import annotations

import numpy as np

from headrace.flow.kernels import borrowing
from headrace.tokens.meta_space import FIRST_BYTE, is_meta_space

_SPACE = np.uint8(0x20)


@borrowing
def copy_pieces(
    data: np.ndarray,
    bounds: np.ndarray,
    prefixed: np.ndarray,
    meta_space: bool,
    out: np.ndarray,
    new_bounds: np.ndarray,
) -> None:
    """Copy pieces, concatenating them.

    Args:
        data: uint8, valid UTF-8.
        bounds: int64[n + 1], the start and end of each piece.
        prefixed: bool[n]: which pieces get a leading space; empty ones never do.
        meta_space: whether U+2581 becomes a space.
        out: uint8: receives the pieces; the rest is filled with zeros.
        new_bounds: int64[n + 1]: receives the start and end of each piece in ``out``.
    """
    at = np.int64(0)
    for i in range(prefixed.size):
        new_bounds[i] = at
        start, size = bounds[i], bounds[i + 1] - bounds[i]
        if prefixed[i] and size > 0:
            out[at] = _SPACE
            at += 1
        suspect = np.uint8(0)
        source, target = data[start : start + size], out[at : at + size]
        for k in range(size):
            target[k] = source[k]
            suspect |= np.uint8(source[k] == FIRST_BYTE)
        at += size if not meta_space or suspect == 0 else _spaced(source, target)
    new_bounds[prefixed.size] = at
    out[at:] = 0


@borrowing
def _spaced(source: np.ndarray, target: np.ndarray) -> int:
    """Copy a piece with a space for each U+2581; returns its new length in bytes."""
    at = k = 0
    while k < source.size:
        byte = source[k]
        if is_meta_space(source, k, source.size):
            byte = _SPACE
            k += 2
        target[at] = byte
        at += 1
        k += 1
    return at
