"""How many documents were removed for what, and which one is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from headrace.documents.store import fetch
from headrace.report.corpus_facts import sources_read
from headrace.report.facts import SourceFacts, removed_by_reason
from headrace.report.length_facts import SIDECARS, with_lengths
from headrace.view.chosen import nearest, nearly, sample
from headrace.view.labels import Label, Precision, can_label, precision, read_labels
from headrace.view.limits import NEAR, in_force, limits_for
from headrace.view.page import Query
from headrace.view.pages.document.load import compared, near_of, sidecars
from headrace.view.quarantine import QUARANTINED, Quarantined, quarantined
from headrace.view.side_by_side import Comparison
from headrace.view.target import Missing, Target
from headrace.view.texts import Piece, piece_of

CHARACTERS = 6000  # of a text that is looked at
Order = Literal["sample", "nearest", "kept"]


class Removed(Query):
    """What is looked at: nothing in particular, or a document in an order."""

    reason: Annotated[str, Field(max_length=200)] | None = None
    source: Annotated[str, Field(max_length=200)] | None = None
    order: Order = "sample"
    seed: Annotated[int, Field(ge=0, lt=1 << 31)] = 0
    at: Annotated[int, Field(ge=0, lt=1 << 53)] = 0


@dataclass(frozen=True)
class Looked:
    """A document that is looked at.

    Attributes:
        row: its row.
        about: its columns but for text, meta and turns.
        text: the beginning of its text.
        verdict: what became of it, as :func:`headrace.select.why.explain.decide_row`.
        decision: what the filter measured; None if no filter did.
        beside: the row of the document it was removed for; None if that is a reference document.
        comparison: both side by side.
        label: what a person said of it.
    """

    row: int
    about: dict[str, Any]
    text: Piece
    verdict: dict[str, Any]
    decision: dict[str, Any] | None
    beside: int | None
    comparison: Comparison | None
    label: str | None


@dataclass(frozen=True)
class Cases:
    """The documents of a reason in an order.

    Attributes:
        of: how many were removed for it.
        count: how many the order has.
        at: the place of the one looked at.
        document: that one; None if there is none.
        undo: the place and row of the document whose label would be taken back.
        precision: of the filter, by the labels.
        can_label: whether labels can be saved.
        limits: what decides, by its place in the recipe, if that is a number.
    """

    of: int
    count: int
    at: int
    document: Looked | None
    undo: tuple[int, int] | None
    precision: Precision
    can_label: bool
    limits: dict[str, float]


@dataclass(frozen=True)
class Shown:
    """What the page shows.

    Attributes:
        sources: what became of each source's documents; without bytes while they are added up.
        counting: whether they are.
        reasons: all reasons, the most frequent first.
        precisions: of each reason, by the labels.
        limits: the places in the recipe of each reason's limits.
        orders: in which the documents of the reason can be looked at.
        cases: the documents of the reason in an order; None while they are chosen, or without a reason.
        quarantined: the rows that could not be read, if these are asked for.
    """

    sources: list[SourceFacts]
    counting: bool
    reasons: dict[str, int]
    precisions: dict[str, Precision]
    limits: dict[str, list[str]]
    orders: list[Order]
    cases: Cases | None
    quarantined: Quarantined | None


def load(target: Target, query: Removed) -> Shown:
    """Count by manifests; choose documents in the background."""
    sources, counting = _sources(target)
    reasons, labels = removed_by_reason(sources), labels_in_force(target)
    if query.source is not None and query.source not in target.recipe.sources:
        fix = f"The sources are {', '.join(target.recipe.sources)}."
        raise Missing(f"There is no source {query.source!r}.", str(target.path), fix)
    unread = cases = None
    if query.reason == QUARANTINED:
        unread = quarantined(target, query.source, query.at)
    elif query.reason is not None:
        if query.reason not in reasons:
            fix = f"The reasons are {', '.join(reasons) or 'none'}."
            raise Missing(f"Nothing was removed for {query.reason!r}.", str(target.path), fix)
        cases = _cases(target, query, query.reason, labels.get(query.reason, []), sources)
    return Shown(
        sources,
        counting,
        reasons,
        {reason: precision(some, None) for reason, some in labels.items()},
        {reason: _limits(target, reason) for reason in reasons},
        _orders(target, query.reason),
        cases,
        unread,
    )


def _limits(target: Target, reason: str) -> list[str]:
    near = target.recipe.deduplicate is not None and target.recipe.deduplicate.near is not None
    return [NEAR] if reason == "duplicate" and near else [one.path for one in limits_for(target.recipe, reason)]


def _orders(target: Target, reason: str | None) -> list[Order]:
    if reason is None or reason == QUARANTINED:
        return []
    if reason == "duplicate":
        return ["sample", "nearest"] if near_of(target.recipe).verify else ["sample"]
    return ["sample", "nearest", "kept"] if limits_for(target.recipe, reason) else ["sample"]


def _sources(target: Target) -> tuple[list[SourceFacts], bool]:
    """What became of each source's documents, and whether their bytes are still being added up."""
    documents, verdicts, tokens = target.documents, target.artifact("verdicts"), target.artifact("tokens")
    assert documents is not None
    facts = sources_read(documents, verdicts, tokens, target.recipe.sources)
    if verdicts is None:
        return facts, False
    sidecars = [target.artifact(kind) for kind in SIDECARS]
    counted = target.later("removed bytes", lambda: with_lengths(facts, documents, verdicts, *sidecars))
    return (facts, True) if counted is None else (counted, False)


def labels_in_force(target: Target) -> dict[str, list[Label]]:
    """The labels by reason, without those given under another limit."""
    found: dict[str, list[Label]] = {}
    if target.is_run:
        for label in read_labels(target.path):
            if label.limit == in_force(target.recipe, label.reason, label.source):
                found.setdefault(label.reason, []).append(label)
    return found


def chosen(target: Target, query: Removed, reason: str) -> Any:
    """The rows in the order that is asked for; None while they are chosen."""
    if query.order == "sample":
        key = ("sample", reason, query.source, query.seed)
        return target.later(key, lambda: sample(target, reason, query.source, query.seed))
    choose = nearest if query.order == "nearest" else nearly
    return target.later((query.order, reason, query.source), lambda: choose(target, reason, query.source))


def _cases(
    target: Target, query: Removed, reason: str, labels: list[Label], sources: list[SourceFacts]
) -> Cases | None:
    rows = chosen(target, query, reason)
    if rows is None:
        return None
    at = min(query.at, max(0, len(rows) - 1))
    labelled = {label.id: label.label for label in labels}
    document = look(target, int(rows[at]), reason, labelled) if len(rows) else None
    undo = (at, int(rows[at])) if document is not None and document.label is not None else None
    if undo is None and at and _id(target, int(rows[at - 1])) in labelled:
        undo = at - 1, int(rows[at - 1])
    return Cases(
        sum(one.removed.get(reason, 0) for one in sources if query.source in (None, one.name)),
        len(rows),
        at,
        document,
        undo,
        precision(labels, query.source),
        can_label(target.path),
        {
            one.path: one.value
            for one in limits_for(target.recipe, reason)
            if query.source is None or query.source in one.sources
        },
    )


def _id(target: Target, row: int) -> str:
    assert target.documents is not None
    return str(fetch(target.documents, [row], ["id"]).column(0)[0].as_py())


def look(target: Target, row: int, reason: str, labelled: dict[str, Any]) -> Looked:
    """A document, and what removed it."""
    from headrace.select.why.explain import decide_row

    documents = target.documents
    assert documents is not None
    columns = ["id", "bytes", "source", "origin_file", "origin_row", "license", "repo", "path", "language"]
    about = fetch(documents, [row], columns).to_pylist()[0]
    decisions, verdict = decide_row(target.recipe, sidecars(target), row)
    assert verdict is not None
    other, comparison = compared(target, row, verdict) if verdict["reason"] == reason else (None, None)
    decision = next((one for one in decisions if one["reason"] == reason), None)
    text = piece_of(documents, row, 0, CHARACTERS)
    return Looked(row, about, text, verdict, decision, other, comparison, labelled.get(about["id"]))
