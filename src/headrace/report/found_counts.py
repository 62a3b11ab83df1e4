"""The counts that a recipe expects of its sources, beside those that the run found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headrace.recipe.expected import Expect
from headrace.recipe.schema import Recipe
from headrace.report import numbers
from headrace.report.facts import FoundCount, SourceFacts
from headrace.report.numbers import whole


def found_counts(recipe: Recipe, sources: Sequence[SourceFacts]) -> list[FoundCount]:
    """Every expected count that is known so far, sources in recipe order.

    Args:
        recipe: the recipe.
        sources: the results for each source so far.
    """
    known = {facts.name: facts for facts in sources}
    return [
        FoundCount(name, key, what, unit, found, expected, source.expect.tolerance)
        for name, source in recipe.sources.items()
        if source.expect is not None and name in known
        for key, what, unit, expected, found in _compared(source.expect, known[name])
        if expected is not None and found is not None
    ]


def expects_counts(recipe: Recipe) -> bool:
    """Whether the recipe expects any counts."""
    return any(
        expect.documents is not None or expect.bytes is not None or expect.tokens is not None or bool(expect.cleaned)
        for expect in (source.expect for source in recipe.sources.values())
        if expect is not None
    )


def needs_lengths(recipe: Recipe) -> bool:
    """Whether an expected count needs the lengths of documents, which manifests do not have."""
    expected = [source.expect for source in recipe.sources.values() if source.expect is not None]
    return any(amount.bytes is not None for expect in expected for amount in expect.cleaned.values())


def sentences(counts: Sequence[FoundCount]) -> Iterator[str]:
    """The counts that depart, each in a sentence that starts with the recipe's key."""
    for count in counts:
        if count.departs:
            where = f"sources.{count.source}.expect.{count.key}"
            yield f"{where}: {whole(count.found)} {count.what}, expected {whole(count.expected)} ({_deviation(count)})."


def cells(counts: Sequence[FoundCount]) -> list[tuple[str, ...]]:
    """A table of found and expected counts: a heading, then a row for each count."""
    rows: list[tuple[str, ...]] = [("source", "", "found", "expected", "deviation")]
    for count in counts:
        show = numbers.size if count.unit == "bytes" else whole
        rows.append((count.source, count.what, show(count.found), show(count.expected), _deviation(count)))
    return rows


def _deviation(count: FoundCount) -> str:
    return "none expected" if not count.expected and count.found else f"{100 * (count.deviation or 0):+.3g} %"


_Compared = tuple[str, str, str, int | None, int | None]


def _compared(expect: Expect, facts: SourceFacts) -> Iterator[_Compared]:
    """Each count's key, its name in words, its unit, what is expected and what was found; None if unknown."""
    # As in a plan, tokens include the end of each document.
    tokens = None if facts.tokens is None else facts.tokens + (facts.kept or 0)
    yield "documents", "documents", "documents", expect.documents, facts.documents
    yield "bytes", "bytes", "bytes", expect.bytes, facts.bytes
    for part, amount in expect.cleaned.items():
        documents, size = _part(facts, part)
        said = part if part == "kept" else f"removed as {part}"
        yield f"cleaned.{part}.documents", f"documents {said}", "documents", amount.documents, documents
        yield f"cleaned.{part}.bytes", f"bytes {said}", "bytes", amount.bytes, size
    yield "tokens", "tokens", "tokens", expect.tokens, tokens


def _part(facts: SourceFacts, part: str) -> tuple[int | None, int | None]:
    """Documents and bytes that are kept, or that are removed for a reason."""
    if facts.kept is None:
        return None, None
    kept = facts.bytes - sum(facts.removed_bytes.values())
    documents = facts.kept if part == "kept" else facts.removed.get(part, 0)
    size = kept if part == "kept" else facts.removed_bytes.get(part, 0)
    return documents, None if facts.lengths is None else size
