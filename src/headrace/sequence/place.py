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
    end: int,
    out: np.ndarray,
    at: np.ndarray,
) -> None:
    """Copy segments of documents, adding the end-of-document token where a segment reaches past the document.

    Args:
        tokens: any unsigned dtype, concatenated documents.
        starts: int64[n], the start of each segment's document in ``tokens``.
        lengths: int64[n], tokens of each segment's document.
        offsets: int32[n], each segment's first token within its document.
        counts: int32[n], tokens of each segment: at most one more than the document has from there.
        end: the end-of-document token.
        out: the dtype of ``tokens``, filled.
        at: int64[n], where each segment goes in ``out``.
    """
    for i in range(starts.size):
        source, target = starts[i] + offsets[i], at[i]
        inside = min(counts[i], lengths[i] - offsets[i])
        copy_slice(tokens, source, inside, out, target)
        if inside < counts[i]:
            out[target + inside] = end
