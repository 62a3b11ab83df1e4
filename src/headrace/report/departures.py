"""Where a run came out otherwise than its recipe expects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headrace.recipe.expected import Rates
from headrace.recipe.schema import Recipe
from headrace.report.facts import SourceFacts, removed_by_reason

COUNTED = ("documents", "verdicts", "tokens")
"""The artifacts whose counts are compared, in the order in which they are made."""


def expects(recipe: Recipe) -> bool:
    """Whether the recipe expects any rate at all."""
    return any(_stated(rates) for _, rates, _ in _scopes(recipe, ()))


def departures(recipe: Recipe, sources: Sequence[SourceFacts]) -> list[str]:
    """What is not as the recipe expects, in sentences that begin with the recipe's key.

    Args:
        recipe: the recipe.
        sources: what became of each source so far; what is not known yet departs from nothing.
    """
    said = []
    for place, rates, some in _scopes(recipe, sources):
        for key, what, part, whole, (least, most) in _compared(rates, some):
            found = part / whole if whole else 0.0
            if whole and not least <= found <= most:
                show = _ratio if key == "tokens_per_byte" else _percent
                said.append(f"{place}.{key}: {show(found)} {what}, expected {show(least)} to {show(most)}.")
    return said


def _scopes(recipe: Recipe, sources: Sequence[SourceFacts]) -> Iterator[tuple[str, Rates, list[SourceFacts]]]:
    """Each section of the recipe that expects something, and the sources that it speaks of."""
    yield "expect", recipe.expect, list(sources)
    for name, source in recipe.sources.items():
        if source.expect is not None:
            yield f"sources.{name}.expect", source.expect, [facts for facts in sources if facts.name == name]


def _stated(rates: Rates) -> bool:
    return any(getattr(rates, key) for key in Rates.model_fields)


def _compared(rates: Rates, sources: list[SourceFacts]) -> Iterator[tuple[str, str, int, int, tuple[float, float]]]:
    """Each rate whose parts are known: its key, what it is in words, a part and its whole, and what is expected."""
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
