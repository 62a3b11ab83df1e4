"""Where a run departs from what its recipe expects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headrace.recipe.expected import Rates
from headrace.recipe.schema import Recipe
from headrace.report.facts import SourceFacts, removed_by_reason
from headrace.report.found_counts import expects_counts, found_counts, sentences

COUNTED = ("documents", "verdicts", "tokens")
"""The artifacts whose counts are compared, in the order they are built."""


def expects(recipe: Recipe) -> bool:
    """Whether the recipe expects any rates or counts."""
    return any(_stated(rates) for _, rates, _ in _scopes(recipe, ())) or expects_counts(recipe)


def departures(recipe: Recipe, sources: Sequence[SourceFacts]) -> list[str]:
    """What departs from the recipe's expectations, in sentences that start with the recipe's key.

    Args:
        recipe: the recipe.
        sources: the results for each source so far; unknown values never depart.
    """
    said = []
    for place, rates, some in _scopes(recipe, sources):
        for key, what, part, whole, (least, most) in _compared(rates, some):
            found = part / whole if whole else 0.0
            if whole and not least <= found <= most:
                show = _ratio if key == "tokens_per_byte" else _percent
                said.append(f"{place}.{key}: {show(found)} {what}, expected {show(least)} to {show(most)}.")
    return [*said, *sentences(found_counts(recipe, sources))]


def _scopes(recipe: Recipe, sources: Sequence[SourceFacts]) -> Iterator[tuple[str, Rates, list[SourceFacts]]]:
    """Each recipe section with expectations, and the sources it covers."""
    yield "expect", recipe.expect, list(sources)
    for name, source in recipe.sources.items():
        if source.expect is not None:
            yield f"sources.{name}.expect", source.expect, [facts for facts in sources if facts.name == name]


def _stated(rates: Rates) -> bool:
    return any(getattr(rates, key) for key in Rates.model_fields)


def _compared(rates: Rates, sources: list[SourceFacts]) -> Iterator[tuple[str, str, int, int, tuple[float, float]]]:
    """Each rate that is known: its key, its name in words, part and whole, and the expected range."""
    documents = sum(source.documents for source in sources)
    if rates.quarantined is not None:
        bad = sum(source.quarantined for source in sources)
        yield "quarantined", "of the records cannot be read", bad, documents + bad, rates.quarantined
    if all(source.kept is not None for source in sources):
        kept = sum(source.kept or 0 for source in sources)
        if rates.kept is not None:
            yield "kept", "of the documents are kept", kept, documents, rates.kept
        removed = removed_by_reason(list(sources))
        for reason, expected in rates.removed.items():
            n = sum(removed.values()) if reason == "all" else removed.get(reason, 0)
            by = "" if reason == "all" else f" as {reason}"
            yield f"removed.{reason}", f"of the documents are removed{by}", n, documents, expected
    if rates.tokens_per_byte is not None and all(source.tokens is not None for source in sources):
        tokens = sum(source.tokens or 0 for source in sources)
        text = sum(source.stored_bytes or 0 for source in sources)
        yield "tokens_per_byte", "tokens per byte of text", tokens, text, rates.tokens_per_byte


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _ratio(value: float) -> str:
    return f"{value:.3g}"
