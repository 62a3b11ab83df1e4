"""Whether an annotator may have learned only where documents come from."""

from __future__ import annotations

from headrace.report.facts import AnnotatorFacts
from headrace.report.numbers import percent

# In a public study the name of the source alone reached an AUC of 0.852, a fastText classifier 0.846.
MARGIN = 0.01
BETWEEN = 0.5  # of the variance of scores: above this, ranking documents is mostly ranking sources


def learned_the_source(one: AnnotatorFacts) -> str | None:
    """A warning in a sentence or two; None if nothing speaks for it."""
    said = []
    figures, between = one.figures, (one.spread or {}).get("between_sources")
    known = figures is not None and None not in (figures["auc"], figures["source_alone"])
    if figures is not None and known and figures["source_alone"] >= figures["auc"] - MARGIN:
        said.append(
            f"The source's name alone separates the held-out examples with an AUC of {figures['source_alone']:.3f}, "
            f"{one.name} with {figures['auc']:.3f}: it may have learned only where documents come from. Read documents "
            "of each tenth, or name positives and negatives of the same source."
        )
    if between is not None and between > BETWEEN:
        said.append(f"{percent(between, 1)} of the variance of {one.name}'s scores lies between sources.")
    return " ".join(said) or None
