"""How an annotator's scores are spread over the corpus: what the report shows beside its held-out figures.

Of a large corpus, a keyed sample tells it: a million documents give shares to within 0.05 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.select.quality.figures import auc

SAMPLED = 1_000_000
LANGUAGES = 20  # shown, those with the most documents
TENTHS = 10
EXAMPLES = 2  # documents of each tenth to read

SAMPLE = np.dtype([("score", "<f4"), ("row", "<u8"), ("key", "<u8"), ("source", "<u4"), ("language", "<u4")])
"""A document of the sample; source and language are numbers of names."""


def spread(
    sample: npt.NDArray[np.void], sources: list[str], languages: list[str], benchmarks: Mapping[str, Any]
) -> dict[str, Any]:
    """The figures.

    Args:
        sample: SAMPLE[n].
        sources, languages: the names that its numbers stand for; '' is a document without a language.
        benchmarks: benchmark -> the scores of its solutions, float32[items].

    Returns:
        ``{"sampled", "without": documents without a score, "by_source", "by_language": name -> {"documents", "mean",
        "deviation", "quantiles": at 5, 25, 50, 75 and 95 %}, "between_sources": the share of the scores' variance that
        lies between sources (null for one source), "tenths": from the lowest, {"low", "high", "documents", "examples":
        rows}, "benchmarks": name -> {"items", "auc": solutions against documents, "median"}}``.
    """
    known = sample[~np.isnan(sample["score"])]
    known = known[np.argsort(known["row"])]
    values = known["score"].astype(np.float64)
    by_source = _groups(values, known["source"], sources)
    by_language = _groups(values, known["language"], languages)
    most = sorted(by_language, key=lambda name: (-by_language[name]["documents"], name))[:LANGUAGES]
    order = np.argsort(values, kind="stable")
    tenths = []
    for part in np.array_split(order, min(TENTHS, len(order))) if len(order) else ():
        some = known[part]
        shown = some["row"][np.argsort(some["key"], kind="stable")[:EXAMPLES]]
        low, high = float(values[part[0]]), float(values[part[-1]])
        tenths.append({"low": low, "high": high, "documents": len(part), "examples": sorted(shown.tolist())})
    return {
        "sampled": len(sample),
        "without": len(sample) - len(known),
        "by_source": by_source,
        "by_language": {name: by_language[name] for name in most},
        "between_sources": _between(values, known["source"]),
        "tenths": tenths,
        "benchmarks": {name: _benchmark(scores, values) for name, scores in sorted(benchmarks.items())},
    }


def _groups(values: npt.NDArray[np.float64], codes: npt.NDArray[Any], names: list[str]) -> dict[str, Any]:
    found = {}
    for code in np.unique(codes).tolist():
        mine = values[codes == code]
        found[names[code]] = {
            "documents": len(mine),
            "mean": float(mine.mean()),
            "deviation": float(mine.std()),
            "quantiles": np.quantile(mine, [0.05, 0.25, 0.5, 0.75, 0.95]).tolist(),
        }
    return found


def _between(values: npt.NDArray[np.float64], codes: npt.NDArray[Any]) -> float | None:
    """The share of the variance that lies between groups (eta squared)."""
    present = np.unique(codes)
    if len(present) < 2 or not (whole := float(values.var())):
        return None
    means = np.array([values[codes == code].mean() for code in present])
    sizes = np.array([(codes == code).sum() for code in present])
    return float((sizes * (means - values.mean()) ** 2).sum() / len(values) / whole)


def _benchmark(scores: npt.NDArray[np.float32], values: npt.NDArray[np.float64]) -> dict[str, Any]:
    labels = np.repeat(np.array([1, 0], dtype=np.uint8), [len(scores), len(values)])
    known = scores[~np.isnan(scores)]
    return {
        "items": len(scores),
        "auc": auc(np.concatenate([scores.astype(np.float64), values]), labels),
        "median": float(np.median(known)) if len(known) else None,
    }
