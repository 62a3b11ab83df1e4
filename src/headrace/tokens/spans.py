"""The range of bytes in a text that each of its tokens stands for."""

from __future__ import annotations

import numpy as np

from headrace.flow.kernels import borrowing
from headrace.tokens.meta_space import is_meta_space


@borrowing
def walk_spans(
    tokens: np.ndarray, offsets: np.ndarray, lengths: np.ndarray, prefixed: np.ndarray, spans: np.ndarray
) -> None:
    """Place tokens one after another: each starts where the previous one ends.

    Args:
        tokens: unsigned integers[n_tokens].
        offsets: int64[n + 1]; list i is ``tokens[offsets[i]:offsets[i + 1]]``.
        lengths: int64[vocab_size], each token's length in bytes.
        prefixed: bool[n], whether a list starts with a dummy space, which is before the text.
        spans: int64[n_tokens, 2], filled: first byte and the one after the last, from the start of the list's text.
    """
    for i in range(offsets.size - 1):
        at = -np.int64(prefixed[i])
        for k in range(offsets[i], offsets[i + 1]):
            spans[k, 0] = max(at, 0)
            at += lengths[tokens[k]]
            spans[k, 1] = at


@borrowing
def widen_meta_spaces(data: np.ndarray, bounds: np.ndarray, offsets: np.ndarray, spans: np.ndarray) -> None:
    """Where a text has U+2581, which tokens count as one byte, a space, shift the spans to its three bytes.

    Args:
        data: uint8, UTF-8.
        bounds: int64[n + 1]; text i is ``data[bounds[i]:bounds[i + 1]]``.
        offsets: int64[n + 1]; the tokens of text i are ``offsets[i]`` to ``offsets[i + 1]``.
        spans: int64[n_tokens, 2], in bytes of the texts with spaces for U+2581; updated.
    """
    for i in range(offsets.size - 1):
        first, stop = bounds[i], bounds[i + 1]
        place, wide = first, np.int64(0)  # a byte of the text, and how many bytes before it the tokens do not count
        for k in range(offsets[i], offsets[i + 1]):
            spans[k, 0] += wide
            end = first + spans[k, 1]
            while place < end + wide:
                step = 3 if is_meta_space(data, place, stop) else 1
                place += step
                wide += step - 1
            spans[k, 1] += wide
