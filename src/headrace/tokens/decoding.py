"""Decode tokens to bytes with a table."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.flow.kernels import kernel

_NEAR = 8
"""Bytes copied for every token, whatever its length: over nine tokens in ten have no more."""


class TokenBytes(NamedTuple):
    """The bytes of every token.

    Attributes:
        data: uint8: all tokens' bytes, concatenated, plus padding.
        starts: int64[vocab_size + 1]; token i is ``data[starts[i]:starts[i + 1]]``.
    """

    data: np.ndarray
    starts: np.ndarray


def token_table(tokens: list[bytes]) -> TokenBytes:
    """The table of a vocabulary's tokens."""
    starts = np.zeros(len(tokens) + 1, dtype=np.int64)
    np.cumsum([len(token) for token in tokens], out=starts[1:])
    return TokenBytes(np.frombuffer(b"".join(tokens) + bytes(_NEAR), dtype=np.uint8), starts)


@kernel
def _sizes(tokens: np.ndarray, starts: np.ndarray, offsets: np.ndarray, bounds: np.ndarray) -> None:
    total = np.int64(0)
    for i in range(offsets.size - 1):
        bounds[i] = total
        for k in range(offsets[i], offsets[i + 1]):
            total += starts[np.int64(tokens[k]) + 1] - starts[tokens[k]]
    bounds[offsets.size - 1] = total


@kernel
def _copy(tokens: np.ndarray, table: TokenBytes, low: int, high: int, out: np.ndarray) -> None:
    data, at = table.data, np.int64(0)
    for k in range(low, high):
        start, end = table.starts[tokens[k]], table.starts[np.int64(tokens[k]) + 1]
        # Read all before writing any, so that they are moved as one word.
        a, b, c, d = data[start], data[start + 1], data[start + 2], data[start + 3]
        e, f, g, h = data[start + 4], data[start + 5], data[start + 6], data[start + 7]
        out[at], out[at + 1], out[at + 2], out[at + 3] = a, b, c, d
        out[at + 4], out[at + 5], out[at + 6], out[at + 7] = e, f, g, h
        for i in range(start + _NEAR, end):
            out[at + i - start] = data[i]
        at += end - start


def bytes_of(tokens: np.ndarray, offsets: np.ndarray, table: TokenBytes) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of token lists.

    Args:
        tokens: unsigned integers[n_tokens], each below the vocabulary's size.
        offsets: int64[n + 1]; list i is ``tokens[offsets[i]:offsets[i + 1]]``.
        table: the vocabulary.

    Returns:
        uint8[n_bytes] and int64[n + 1]: the bytes of all lists, and the start and end of each.
    """
    if len(tokens) and int(tokens.max()) >= len(table.starts) - 1:
        raise IndexError(f"token {int(tokens.max())} is not in a vocabulary of {len(table.starts) - 1}")
    bounds = np.empty(len(offsets), dtype=np.int64)
    _sizes(tokens, table.starts, offsets, bounds)
    out = np.empty(int(bounds[-1]) + _NEAR, dtype=np.uint8)
    _copy(tokens, table, int(offsets[0]), int(offsets[-1]), out)
    return out[: bounds[-1]], bounds
