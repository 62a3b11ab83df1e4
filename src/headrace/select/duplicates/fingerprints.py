"""Band fingerprints of documents under a recipe's settings: documents that share one are candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from headrace.recipe.schema import Near


def bands_of(near: Near) -> tuple[int, int]:
    """The (bands, rows) of a signature: those in the recipe, or the best for the threshold."""
    if near.bands is not None and near.rows is not None:
        return near.bands, near.rows
    from headrace.select.duplicates.bands import optimal_bands

    return optimal_bands(near.threshold, near.values)


def fingerprints(
    near: Near, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """The band fingerprints of documents.

    Args:
        near: the recipe's settings.
        data, offsets: documents as UTF-8, uint8[...] and int64[n + 1].

    Returns:
        ``(which, found)``: int64[m], the positions of documents that have fingerprints, and uint64[m, bands]. A
        document whose cleaned text is empty has none, except with datasketch's signature, where all such documents
        share theirs.
    """
    from headrace.select.clean import clean
    from headrace.select.duplicates import minhash, permuted_minhash

    points, starts, lengths = clean(data, offsets)
    fast = near.signature == "fast"
    which = np.flatnonzero(lengths) if fast else np.arange(len(lengths))
    sketch = (minhash if fast else permuted_minhash).band_fingerprints
    words = near.unit == "words"
    found = sketch(points, starts[which], lengths[which], near.ngram, words, near.values, *bands_of(near))
    return which, found
