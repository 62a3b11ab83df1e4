"""Two runs, or recipes: what differs in their recipes, in the documents they keep, in their tokens and losses."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from headrace.documents.store import fetch, read_columns
from headrace.errors import UserError
from headrace.flow.artifact import Artifact
from headrace.flow.keys import parse_ids
from headrace.recipe.load import dump
from headrace.report.charts.canvas import Chart
from headrace.report.charts.series import Panel, Series, series_chart
from headrace.report.charts.series import Stage as Band
from headrace.report.corpus_facts import sources_read
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
class Counted:
    """A source: records read, documents kept and removed, tokens. None where that is not known, as in a plan."""

    read: int | None
    kept: int | None
    removed: int | None
    tokens: int | None


@dataclass(frozen=True)
class Side:
    """One of the runs or recipes.

    Attributes:
        name: its recipe's name, or its folder's where both have the same.
        planned: whether its figures are those of a plan: estimates, unless the recipe states them.
        wrong: why there is no plan, if so.
        sources: source -> what is counted of it; None while that is estimated.
        tokens: stage -> source -> tokens in its sequence.
        steps: stage -> logged steps, int64[n].
        losses: stage -> the loss at each.
    """

    name: str
    planned: bool
    wrong: str | None
    sources: dict[str, Counted] | None
    tokens: dict[str, dict[str, int]]
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
        this, other: the runs or recipes.
        recipe: lines of a unified difference of the recipes.
        kept: documents that both keep, only this one, only the other; None while they are compared, and of recipes.
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
    found = None
    if target.is_run and other.is_run:
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
    return _planned(target, name) if target.is_recipe else _run(target, name)


def _planned(target: Target, name: str) -> Side:
    """What a recipe's plan says."""
    try:
        plan = target.plan
    except UserError as error:  # sources that are not on this machine, say
        return Side(name, True, f"{error.what} {error.where}", {}, {}, {}, {})
    if plan is None:
        return Side(name, True, None, None, {}, {}, {})
    sources = {one.name: Counted(one.documents, None, None, one.tokens) for one in plan.sources}
    tokens = {stage.name: {one.source: one.tokens for one in stage.sources} for stage in plan.stages}
    return Side(name, True, None, sources, tokens, {}, {})


def _run(target: Target, name: str) -> Side:
    documents, verdicts, tokens = target.documents, target.artifact("verdicts"), target.artifact("tokens")
    sources = sources_read(documents, verdicts, tokens, target.recipe.sources) if documents else []
    found = [facts_of(target, stage.name) for stage in target.recipe.stages]
    curves = {stage.name: target.curves(stage.name) for stage in target.recipe.stages}
    drawn = {stage: thinned(one) for stage, one in curves.items() if one is not None and len(one.step)}
    return Side(
        name,
        False,
        None,
        {one.name: Counted(one.read, one.kept, sum(one.removed.values()), one.tokens) for one in sources},
        {pair[0].name: {one.name: one.tokens for one in pair[0].sources} for pair in found if pair is not None},
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
        digits = parse_ids(read_columns(documents.shard_path(shard), ["id"]).column("id"))[:, 0]
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
    sides = shown.this, shown.other
    if any(side.sources is None for side in sides):
        return pending("Looking at the sources …")
    ours, theirs = (side.sources or {} for side in sides)
    columns = [text("source")]
    for what in ("read", "kept", "removed", "tokens"):
        columns += [Column(f"{what}, {shown.this.name}"), Column(shown.other.name), Column("change")]
    rows = []
    for name in dict.fromkeys([*ours, *theirs]):
        cells: list[object] = [name]
        for get in (
            lambda one: one.read,
            lambda one: one.kept,
            lambda one: one.removed,
            lambda one: one.tokens,
        ):
            cells += _pair(get(ours[name]) if name in ours else None, get(theirs[name]) if name in theirs else None)
        rows.append(cells)
    notes = [
        f"Figures of {one.name} are estimates of a plan, unless its recipe states them." for one in sides if one.planned
    ]
    notes += [f"{one.name} cannot be planned here: {one.wrong}" for one in sides if one.wrong is not None]
    drawn = table(columns, rows) if rows else empty("No documents yet.")
    return join([[element("p", note, class_="note") for note in notes], drawn])


def _pair(mine: int | None, other: int | None) -> list[object]:
    """Two numbers and the change from the second to the first."""
    change = None
    if mine is not None and other is not None and mine != other:
        share = f" ({'+' if mine > other else '−'}{percent(abs(mine - other), other)})" if other else ""
        change = f"{'+' if mine > other else '−'}{whole(abs(mine - other))}{share}"
    return [None if mine is None else whole(mine), None if other is None else whole(other), change]


def _documents_of(query: CompareQuery, shown: Shown) -> Markup:
    if shown.this.planned or shown.other.planned:
        return element("p", "Which documents it keeps, only a run of a recipe tells.", class_="note")
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
        {(stage, source): n for stage, sources in side.tokens.items() for source, n in sources.items()}
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
    about="What differs between two runs or recipes: recipes, documents kept, tokens by stage and source, losses.",
    query=CompareQuery,
    load=load,
    draw=draw,
    heading=lambda query, shown: f"{shown.this.name} and {shown.other.name}",
)
