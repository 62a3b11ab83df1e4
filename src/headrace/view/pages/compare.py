"""Two runs: what differs in their recipes, in the documents they keep, in their tokens, and in their losses."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from headrace.documents.store import fetch, read_columns
from headrace.flow.artifact import Artifact
from headrace.recipe.load import dump
from headrace.report.charts.canvas import Chart
from headrace.report.charts.series import Panel, Series, series_chart
from headrace.report.charts.series import Stage as Band
from headrace.report.corpus_facts import sources_read
from headrace.report.facts import SourceFacts, StageFacts
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import counted, percent, short, whole
from headrace.report.palette import hue
from headrace.report.tables import Column, both, figure, table, text
from headrace.view.address import address
from headrace.view.layout import empty, pending
from headrace.view.page import Page, Query
from headrace.view.pages.stage import thinned
from headrace.view.pages.stages import facts_of
from headrace.view.target import Target, Wrong

SHOWN = 20  # documents on a page
LINES = 2000  # of the difference of two recipes


class CompareQuery(Query):
    """Which documents are listed: those that only this run keeps, or only the other, from which one on."""

    only: Literal["this", "other"] = "this"
    after: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True)
class Side:
    """One of the runs.

    Attributes:
        name: its recipe's name, or its folder's where both have the same.
        sources: what happened to each source's records.
        stages: what each stage holds.
        steps: stage -> logged steps, int64[n].
        losses: stage -> the loss at each.
    """

    name: str
    sources: list[SourceFacts]
    stages: list[StageFacts]
    steps: dict[str, np.ndarray]
    losses: dict[str, np.ndarray]


@dataclass(frozen=True)
class Document:
    """A document that one run keeps and the other does not."""

    row: int
    name: str
    source: str
    bytes: int


@dataclass(frozen=True)
class Shown:
    """What the page shows.

    Attributes:
        this, other: the runs.
        recipe: lines of a unified difference of the recipes.
        kept: documents that both keep, only this one, only the other; None while they are compared.
        documents: some of those that only one keeps.
        next: the place to go on from; None at the end.
    """

    this: Side
    other: Side
    recipe: list[str]
    kept: tuple[int, int, int] | None
    documents: list[Document]
    next: int | None


def load(target: Target, query: CompareQuery) -> Shown:
    """Compare manifests; documents are compared in the background, by their ids."""
    other = target.other
    if other is None:
        raise Wrong("There is nothing to compare with.", str(target.path), "headrace view RUN --with OTHER")
    names = (target.name, other.name)
    if names[0] == names[1]:
        names = (target.path.resolve().name, other.path.resolve().name)
    if names[0] == names[1]:
        names = ("this run", "the other")
    told = difflib.unified_diff(
        dump(other.recipe).splitlines(), dump(target.recipe).splitlines(), names[1], names[0], lineterm="", n=2
    )
    found = target.later(("kept", other.stamp), lambda: _compared(target, other))
    kept, documents, following = None, [], None
    if found is not None:
        both_, ours, theirs = found
        kept = both_, len(ours), len(theirs)
        side, rows = (target, ours) if query.only == "this" else (other, theirs)
        shown = rows[query.after : query.after + SHOWN]
        documents = _documents(side.documents, shown)
        following = query.after + SHOWN if query.after + SHOWN < len(rows) else None
    sides = [_side(one, name) for one, name in zip((target, other), names, strict=True)]
    return Shown(sides[0], sides[1], list(told)[:LINES], kept, documents, following)


def _side(target: Target, name: str) -> Side:
    documents, verdicts, tokens = target.documents, target.artifact("verdicts"), target.artifact("tokens")
    sources = sources_read(documents, verdicts, tokens, target.recipe.sources) if documents else []
    found = [facts_of(target, stage.name) for stage in target.recipe.stages]
    curves = {stage.name: target.curves(stage.name) for stage in target.recipe.stages}
    drawn = {stage: thinned(one) for stage, one in curves.items() if one is not None and len(one.step)}
    return Side(
        name,
        sources,
        [pair[0] for pair in found if pair is not None],
        {stage: one.step for stage, one in drawn.items()},
        {stage: one.values["loss"] for stage, one in drawn.items()},
    )


def _compared(this: Target, other: Target) -> tuple[int, np.ndarray, np.ndarray]:
    """Documents that both keep, and the rows of those that only one keeps. Copies with one id count each."""
    (ours, our_rows), (theirs, their_rows) = _kept(this), _kept(other)
    mine, other_ = ~np.isin(ours, theirs), ~np.isin(theirs, ours)
    return int((~mine).sum()), our_rows[mine], their_rows[other_]


def _kept(target: Target) -> tuple[np.ndarray, np.ndarray]:
    """The first 64 bits of the ids of kept documents, and their rows."""
    documents, verdicts = target.documents, target.artifact("verdicts")
    ids, rows = [np.empty(0, dtype=np.uint64)], [np.empty(0, dtype=np.int64)]
    if documents is None:
        return ids[0], rows[0]
    for shard in range(len(documents.shards)):
        column = read_columns(documents.shard_path(shard), ["id"]).column("id")
        digits = np.array([int(one[:16], 16) for one in column.to_pylist()], dtype=np.uint64)
        keep = np.ones(len(digits), dtype=bool)
        if verdicts is not None:
            keep = read_columns(verdicts.shard_path(shard), ["keep"]).column("keep").to_numpy()
        ids.append(digits[keep])
        rows.append(np.flatnonzero(keep) + int(documents.row_offsets[shard]))
    return np.concatenate(ids), np.concatenate(rows)


def _documents(documents: Artifact | None, rows: np.ndarray) -> list[Document]:
    if documents is None or not len(rows):
        return []
    columns = ["path", "origin_file", "origin_row", "source", "bytes"]
    told = fetch(documents, rows, columns).to_pylist()
    return [
        Document(row, one["path"] or f"{one['origin_file']}:{one['origin_row']}", one["source"], one["bytes"])
        for row, one in zip(rows.tolist(), told, strict=True)
    ]


def draw(query: CompareQuery, shown: Shown) -> Markup:
    """The page."""
    return join(
        [
            element("p", f"{shown.this.name} beside {shown.other.name}", class_="lead"),
            element("h2", "Recipes"),
            _recipes(shown),
            element("h2", "Documents"),
            _sources(shown),
            _documents_of(query, shown),
            element("h2", "Tokens"),
            _tokens(shown),
            _losses(shown),
        ]
    )


def _recipes(shown: Shown) -> Markup:
    if not shown.recipe:
        return element("p", "The recipes say the same.")
    kinds = {"+": "added", "-": "gone", "@": "dim"}
    lines = [
        element("span", line, "\n", class_=kinds.get(line[:1], ""))
        for line in shown.recipe
        if not line.startswith(("+++", "---"))
    ]
    note = f"− {shown.other.name}, + {shown.this.name}"
    return join([element("p", note, class_="note"), element("pre", lines, class_="text diff")])


def _sources(shown: Shown) -> Markup:
    ours, theirs = ({one.name: one for one in side.sources} for side in (shown.this, shown.other))
    columns = [text("source")]
    for what in ("read", "kept", "removed", "tokens"):
        columns += [Column(f"{what}, {shown.this.name}"), Column(shown.other.name), Column("change")]
    rows = []
    for name in dict.fromkeys([*ours, *theirs]):
        cells: list[object] = [name]
        for get in (
            lambda one: one.read,
            lambda one: one.kept,
            lambda one: sum(one.removed.values()),
            lambda one: one.tokens,
        ):
            cells += _pair(get(ours[name]) if name in ours else None, get(theirs[name]) if name in theirs else None)
        rows.append(cells)
    return table(columns, rows) if rows else empty("No documents yet.")


def _pair(mine: int | None, other: int | None) -> list[object]:
    """Two numbers and the change from the second to the first."""
    change = None
    if mine is not None and other is not None and mine != other:
        share = f" ({'+' if mine > other else '−'}{percent(abs(mine - other), other)})" if other else ""
        change = f"{'+' if mine > other else '−'}{whole(abs(mine - other))}{share}"
    return [None if mine is None else whole(mine), None if other is None else whole(other), change]


def _documents_of(query: CompareQuery, shown: Shown) -> Markup:
    if shown.kept is None:
        return pending("Comparing documents …")
    same, ours, theirs = shown.kept
    said = f"{counted(same, 'document')} kept by both, {whole(ours)} only by {shown.this.name}, "
    said += f"{whole(theirs)} only by {shown.other.name}."
    links = [
        element(
            "a",
            f"only in {side.name}",
            href=address("compare", **query.changed(only=key, after=0)),
            aria_current="true" if query.only == key else None,
        )
        for key, side in (("this", shown.this), ("other", shown.other))
    ]
    rows = [
        element(
            "li",
            element("a", one.name, href=address("document", row=one.row)) if query.only == "this" else one.name,
            element("span", f" {one.source} · {short(one.bytes)}B", class_="where"),
        )
        for one in shown.documents
    ]
    more = None
    if shown.next is not None:
        more = element("a", "More", href=address("compare", **query.changed(after=shown.next)))
    return join(
        [
            element("p", said),
            element("p", [[" · " if i else "", one] for i, one in enumerate(links)]),
            element("ul", rows) if rows else empty("None."),
            element("p", more) if more else None,
        ]
    )


def _tokens(shown: Shown) -> Markup:
    told = [
        {(stage.name, s.name): s.tokens for stage in side.stages for s in stage.sources}
        for side in (shown.this, shown.other)
    ]
    columns = [text("stage"), text("source"), Column(shown.this.name), Column(shown.other.name), Column("change")]
    rows = [[*key, *_pair(told[0].get(key), told[1].get(key))] for key in dict.fromkeys([*told[0], *told[1]])]
    return (
        table(columns, rows, "Tokens of each source in each stage's sequence.") if rows else empty("No sequences yet.")
    )


def _losses(shown: Shown) -> Markup | None:
    charts: list[Markup] = []
    for stage in dict.fromkeys([*shown.this.steps, *shown.other.steps]):
        series = [
            Series(side.name, f"stroke {hue(i)}", side.steps[stage], side.losses[stage], smooth=True)
            for i, side in enumerate((shown.this, shown.other))
            if stage in side.steps
        ]
        last = float(max(one.x[-1] for one in series))
        panel = Panel(f"Loss, {stage}", "nats per token, smoothed", series)
        band = Band(stage, 1.0, max(last, 2.0))
        charts.append(figure(panel.title, both(_drawing(panel, band), f"loss-{len(charts)}")))
    return element("section", element("h2", "Losses"), charts) if charts else None


def _drawing(panel: Panel, band: Band) -> Callable[[float, str], Chart]:
    return lambda width, name: series_chart(panel, [band], width, "steps")


PAGE = Page(
    name="compare",
    title="Compare",
    about="What differs between two runs: recipes, documents kept, tokens by stage and source, losses.",
    query=CompareQuery,
    load=load,
    draw=draw,
    heading=lambda query, shown: "Two runs",
    serves=lambda target: target.other is not None,
    menu=True,
)
