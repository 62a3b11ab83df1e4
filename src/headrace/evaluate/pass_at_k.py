"""pass@k without bias (Chen et al. 2021, 2107.03374, section 2.1), and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# Two-sided 95 %.
_Z = 1.959963984540054


def pass_at_k(samples: Sequence[int], correct: Sequence[int], k: int) -> np.ndarray:
    """The chance that at least one of k samples of a task passes, estimated from more.

    1 - C(n - c, k) / C(n, k), as the product that keeps it from overflowing.

    Args:
        samples: n for each task, at least k.
        correct: c for each task: how many passed.
        k: the number of samples.

    Returns:
        float64[tasks].
    """
    out = np.ones(len(samples))
    for task, (n, c) in enumerate(zip(samples, correct, strict=True)):
        if not 1 <= k <= n or not 0 <= c <= n:
            raise ValueError(f"pass@{k} of {c} out of {n} samples")
        if n - c >= k:
            out[task] = 1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1))
    return out


def interval(values: np.ndarray) -> tuple[float, float]:
    """A 95 % confidence interval for the mean over tasks (Wilson, 1927).

    Tasks are the sample: values between 0 and 1 vary at most as much as ones that are 0 or 1, for which it is exact, so
    it errs on the wide side. Unlike a bootstrap it says something when no task, or every one, is solved.

    Args:
        values: float64[n], each in [0, 1], n >= 1.
    """
    n, mean = len(values), float(np.mean(values))
    centre = (mean + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z * math.sqrt(mean * (1 - mean) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n)
    return max(0.0, centre - half) if mean > 0 else 0.0, min(1.0, centre + half) if mean < 1 else 1.0
