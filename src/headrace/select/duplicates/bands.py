"""How a signature is split into bands, and which similarities that finds."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt


def probability(similarity: npt.ArrayLike, bands: int, rows: int) -> npt.NDArray[np.float64]:
    """The probability that two documents with a Jaccard similarity agree in a band: 1 - (1 - s**rows)**bands."""
    s = np.asarray(similarity, dtype=np.float64)
    return np.asarray(1.0 - (1.0 - s**rows) ** bands)


@lru_cache(maxsize=64)
def optimal_bands(
    threshold: float, values: int, false_positive_weight: float = 0.5, false_negative_weight: float = 0.5
) -> tuple[int, int]:
    """The (bands, rows) with the least weighted error area for a threshold, as chosen by datasketch's MinHashLSH.

    The area below the curve of :func:`probability` left of the threshold (false positives) and above it to the right
    (false negatives), by the midpoint rule with steps of 0.001; the first of equals wins. 128 values and 0.8 give
    SlimPajama's 9 x 13.

    Args:
        threshold: Jaccard similarity, in (0, 1).
        values: hash values per signature; bands * rows <= values.
        false_positive_weight, false_negative_weight: weights of the two areas.
    """
    below = _midpoints(0.0, threshold)
    above = _midpoints(threshold, 1.0)
    best, least = (1, 1), np.inf
    for bands in range(1, values + 1):
        for rows in range(1, values // bands + 1):
            false_positive = float(probability(below, bands, rows).sum()) * _WIDTH
            false_negative = float((1.0 - probability(above, bands, rows)).sum()) * _WIDTH
            error = false_positive_weight * false_positive + false_negative_weight * false_negative
            if error < least:
                best, least = (bands, rows), error
    return best


_WIDTH = 0.001


def _midpoints(low: float, high: float) -> npt.NDArray[np.float64]:
    """Midpoints of steps of ``_WIDTH`` from low to high, accumulated as in datasketch."""
    starts = []
    x = low
    while x < high:
        starts.append(x)
        x += _WIDTH
    return np.asarray(starts) + 0.5 * _WIDTH


def curve(bands: int, rows: int) -> dict[str, float]:
    """The candidate probability at similarities 0.05, 0.10, ..., 1.00, for the manifest and report."""
    at = np.arange(1, 21) / 20
    return {f"{s:.2f}": round(float(p), 6) for s, p in zip(at, probability(at, bands, rows), strict=True)}
