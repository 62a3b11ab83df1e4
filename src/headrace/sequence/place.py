"""Copy tokens from the store into segments."""

from __future__ import annotations

import numpy as np

from headrace.flow.kernels import kernel
from headrace.flow.slices import copy_slice


@kernel
def collect(
    tokens: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    offsets: np.ndarray,
    counts: np.ndarray,
    tails: np.ndarray,
    tail: np.ndarray,
    out: np.ndarray,
    at: np.ndarray,
) -> None:
    """Copy segments of documents, and of the tokens that follow each: its end, or what joins it to the next.

    Args:
        tokens: any unsigned dtype, concatenated documents.
        starts: int64[n], the start of each segment's document in ``tokens``.
        lengths: int64[n], tokens of each segment's document.
        offsets: int32[n], each segment's first token within its document.
        counts: int32[n], tokens of each segment.
        tails: the dtype of ``tokens`` or another, what follows documents, concatenated.
        tail: int64[n], the start in ``tails`` of what follows each segment's document.
        out: the dtype of ``tokens``, filled.
        at: int64[n], where each segment goes in ``out``.
    """
    for i in range(starts.size):
        source, target = starts[i] + offsets[i], at[i]
        inside = max(0, min(counts[i], lengths[i] - offsets[i]))
        copy_slice(tokens, source, inside, out, target)
        first = tail[i] + max(0, offsets[i] - lengths[i])
        for k in range(counts[i] - inside):
            out[target + inside + k] = tails[first + k]
