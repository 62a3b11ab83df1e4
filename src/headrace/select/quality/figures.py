"""How well scores separate two classes, and what else would."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 10  # of the reliability plot

Floats = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.uint8]


def auc(scores: Floats, labels: Labels) -> float | None:
    """The area under the ROC curve: the chance that a positive scores higher than a negative, ties counting half
    (Mann and Whitney 1947). None without both classes.

    Args:
        scores: float[n]; NaN is below everything.
        labels: uint8[n], 1 for positives.
    """
    good = int(labels.sum())
    others = len(labels) - good
    if not good or not others:
        return None
    return float((_ranks(scores)[labels == 1].sum() - good * (good + 1) / 2) / (good * others))


def auc_error(found: float, positives: int, negatives: int) -> float:
    """The standard error of an AUC (Hanley and McNeil 1982, formula 1).

    Args:
        found: the AUC; 0 and 1, which would have no error, are taken as half an example of the smaller class short.
        positives, negatives: examples of each class, at least one.
    """
    short = 1 / (2 * min(positives, negatives))
    found = min(max(found, short), 1 - short)
    of_positives, of_negatives = found / (2 - found), 2 * found * found / (1 + found)
    variance = found * (1 - found) + (positives - 1) * (of_positives - found**2)
    variance += (negatives - 1) * (of_negatives - found**2)
    return float(np.sqrt(variance / (positives * negatives)))


def _finite(scores: Floats) -> npt.NDArray[np.float64]:
    return np.nan_to_num(np.asarray(scores, dtype=np.float64), nan=-np.inf, posinf=np.inf, neginf=-np.inf)


def f1(scores: Floats, labels: Labels, limit: float) -> float:
    """The harmonic mean of precision and recall when what scores at least ``limit`` counts as positive."""
    said = _finite(scores) >= limit
    right = int((said & (labels == 1)).sum())
    return 2 * right / max(1, int(said.sum()) + int(labels.sum()))


def reliability(scores: Floats, labels: Labels) -> list[dict[str, float]]:
    """Of the examples in each tenth of the scores from 0 to 1: ``{"documents", "said": mean score, "positive": their
    share of positives}``; empty tenths are left out, and examples without a score."""
    known = np.isfinite(scores)
    scores, labels = np.asarray(scores, dtype=np.float64)[known], labels[known]
    place = np.clip((scores * BINS).astype(np.int64), 0, BINS - 1)
    out = []
    for k in range(BINS):
        inside = place == k
        if n := int(inside.sum()):
            mean, share = float(scores[inside].mean()), float(labels[inside].mean())
            out.append({"documents": n, "said": mean, "positive": share})
    return out


def by_source_alone(
    labels: Labels, sources: npt.NDArray[np.integer[Any]], tested: npt.NDArray[np.integer[Any]], count: int
) -> npt.NDArray[np.float64]:
    """What the name of the source alone says: the share of positives among the training examples of each tested one's
    source (half where there are none)."""
    good = np.bincount(sources, labels, minlength=count)
    whole = np.bincount(sources, minlength=count)
    share = np.where(whole > 0, good / np.maximum(whole, 1), 0.5)
    return np.asarray(share[tested], dtype=np.float64)


def correlation_within(scores: Floats, labels: Labels, places: npt.NDArray[np.integer[Any]]) -> float | None:
    """Spearman's rank correlation of scores and labels within sources, weighted by their examples; None if no source
    has both classes."""
    total, weight = 0.0, 0
    for k in np.unique(places).tolist():
        mine = places == k
        if not 0 < labels[mine].sum() < mine.sum():
            continue
        found = _correlation(_ranks(scores[mine]), labels[mine].astype(np.float64))
        total, weight = total + found * int(mine.sum()), weight + int(mine.sum())
    return total / weight if weight else None


def _correlation(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Pearson's; 0 if all values of one are equal."""
    a, b = one - one.mean(), other - other.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm else 0.0


def _ranks(values: Floats) -> npt.NDArray[np.float64]:
    """Ranks from 1, the mean of those that ties share."""
    _, place, count = np.unique(_finite(values), return_inverse=True, return_counts=True)
    ends = np.cumsum(count)
    return np.asarray(((ends - count + ends + 1) / 2)[place], dtype=np.float64)


def held_out_figures(
    tested: Sequence[tuple[Floats, Labels, npt.NDArray[np.integer[Any]]]],
    trained: Sequence[int],
    labels: Labels,
    sources: npt.NDArray[np.integer[Any]],
    names: Sequence[str],
) -> dict[str, Any]:
    """The figures of an annotator.

    Args:
        tested: for each training, the scores, labels and sources of held-out examples; the first is the one that
            counts.
        trained: for each, the number of examples it was trained on.
        labels, sources: of all training examples.
        names: of the sources.
    """
    scores, truth, places = tested[0]
    alone = by_source_alone(labels, sources, places, len(names))
    within = {}
    for k in np.unique(places).tolist():
        mine = places == k
        within[names[k]] = {"documents": int(mine.sum()), "positives": int(truth[mine].sum()),
                            "auc": auc(scores[mine], truth[mine])}  # fmt: skip
    return {
        "held_out": {"positives": int(truth.sum()), "negatives": int(len(truth) - truth.sum())},
        "auc": auc(scores, truth),
        "f1": f1(scores, truth, 0.5),
        "reliability": reliability(scores, truth),
        "curve": sorted(
            ({"examples": n, "auc": auc(one[0], one[1])} for n, one in zip(trained, tested, strict=True)),
            key=lambda point: point["examples"],
        ),
        "source_alone": auc(alone, truth),
        "rank_correlation_within": correlation_within(scores, truth, places),
        "within": within,
    }
