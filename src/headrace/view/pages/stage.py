"""A stage: what it takes from each source, its schedule, its loss by source, its rows with the highest loss; a click on
a step opens its batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from headrace.errors import UserError
from headrace.report.charts.series import Link, Panel, Series, series_chart
from headrace.report.charts.series import Stage as Band
from headrace.report.charts.split import SplitSource, SplitStage, split_chart
from headrace.report.facts import StageFacts
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import counted, whole
from headrace.report.palette import hue
from headrace.report.sections.stages import groups_table, ledger_table, lengths_table
from headrace.report.tables import Column, both, details, figure, table, text
from headrace.spikes import sources_of
from headrace.view.address import address
from headrace.view.curves import Curves
from headrace.view.layout import empty, pending
from headrace.view.page import Page, Query
from headrace.view.pages.stages import facts_of
from headrace.view.target import Missing, Target
from headrace.view.worst import DEVIATIONS, Worst, worst

STRETCHES = 240  # parts of a chart's axis that can be clicked: of 3.5 pixels on a wide page
POINTS = 800  # of a line in the answer to a program
SPIKES = 50  # listed
ROWS, LISTED = 50, 12  # rows with the highest loss: looked for, listed at first


class StageQuery(Query):
    """A stage, and the steps that are shown of it."""

    stage: str
    first: Annotated[int, Field(ge=1)] = 1
    last: Annotated[int | None, Field(ge=1)] = None
    by: Literal["mean", "source"] = "source"
    log: bool = False


@dataclass(frozen=True)
class Shown:
    """What the page shows.

    Attributes:
        stage: its name.
        names: sources in the order of their colors.
        facts: what it holds; None before its sequence is built.
        counting: whether shares of fill-in-the-middle are still being counted.
        first, last, steps: the steps shown, and how many were logged in all.
        step: int64[n], of the values below, which are means of stretches if there are too many steps.
        values: name -> float64[n].
        by_source: source -> float64[n], losses.
        skipped: step -> why it changed no weights.
        worst: the rows with the highest loss; None while they are looked for, without any where none were recorded.
        of_sources: row -> the sources of those.
    """

    stage: str
    names: list[str]
    facts: StageFacts | None
    counting: bool
    first: int
    last: int
    steps: int
    step: np.ndarray
    values: dict[str, np.ndarray]
    by_source: dict[str, np.ndarray]
    skipped: dict[int, str]
    worst: Worst | None
    of_sources: dict[int, list[str]]


def load(target: Target, query: StageQuery) -> Shown:
    """Read the manifest and the log."""
    if query.stage not in {stage.name for stage in target.recipe.stages}:
        target.sequence(query.stage)  # says what is there
        raise Missing("Nothing is trained on these rows.", query.stage, "Open the sequence itself.")
    found, curves = facts_of(target, query.stage), target.curves(query.stage)
    steps = 0 if curves is None or not len(curves.step) else int(curves.step[-1])
    last = min(query.last or steps, steps)
    first = min(query.first, max(last, 1))
    about = query.stage, target.sources, found and found[0], found is not None and not found[1]
    if curves is None or not steps:
        return Shown(*about, 1, 0, 0, np.empty(0, dtype=np.int64), {}, {}, {}, Worst([], 0, 0), {})
    rows = target.later(("worst", query.stage, first, last), lambda: _worst(target, query.stage, first, last))
    part = thinned(curves.between(first, last))
    return Shown(
        *about, first, last, steps, part.step, part.values, part.by_source, part.skipped, *(rows or (None, {}))
    )


def _worst(target: Target, stage: str, first: int, last: int) -> tuple[Worst, dict[int, list[str]]]:
    """The rows with the highest loss, and their sources."""
    try:
        found, sequence = worst(target.steps(stage), first, last, ROWS), target.sequence(stage)
    except UserError:  # the sequence is gone
        return Worst([], 0, 0), {}
    rows = [one.row for one in found.rows if one.current and one.row < len(sequence)]
    return found, {row: sources_of(sequence, row) for row in rows}


def thinned(curves: Curves) -> Curves:
    """Means of stretches of steps, each told by its last; all of them if they are few."""
    n = len(curves.step)
    if n <= POINTS:
        return curves
    cuts = np.linspace(0, n, POINTS + 1).astype(int)

    def mean(column: np.ndarray) -> np.ndarray:
        known = np.isfinite(column)
        total = np.add.reduceat(np.where(known, column, 0.0), cuts[:-1])
        count = np.add.reduceat(known.astype(np.int64), cuts[:-1])
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    return Curves(
        curves.step[cuts[1:] - 1],
        {name: mean(column) for name, column in curves.values.items()},
        {name: mean(column) for name, column in curves.by_source.items()},
        curves.skipped,
    )


def draw(query: StageQuery, shown: Shown) -> Markup:
    """The page."""
    return join([_holds(shown), _training(query, shown)])


def _holds(shown: Shown) -> Markup:
    facts = shown.facts
    if facts is None:
        return empty("The sequence is not built yet.")
    split = [SplitStage(facts.name, [SplitSource(s.name, s.tokens, s.epochs, s.fim, s.slice) for s in facts.sources])]
    steps = f", {counted(facts.steps, 'step')} of {counted(facts.batch or 0, 'row')}" if facts.steps else ""
    said = f"{counted(facts.rows, 'row')} of {whole(facts.sequence_length)} tokens{steps}."
    return join(
        [
            element(
                "p", said, " ", element("a", "Read the rows", href=address("sequence", stage=facts.name)), class_="lead"
            ),
            pending("Counting tokens in fill-in-the-middle order …") if shown.counting else None,
            figure("Tokens by source", both(lambda w, name: split_chart(split, shown.names, w, name), "split")),
            ledger_table([facts], shown.names),
            lengths_table([facts], shown.names),
            groups_table([facts], shown.names),
        ]
    )


def _training(query: StageQuery, shown: Shown) -> Markup:
    heading = element("h2", "Training", id="training")
    if not shown.steps:
        return join([heading, empty("No step is logged yet.")])
    charts = [_figure(query, shown, panel, f"panel{i}") for i, panel in enumerate(_panels(query, shown))]
    return join([heading, _controls(query, shown), charts, _skipped(shown), _highest(shown)])


def _panels(query: StageQuery, shown: Shown) -> list[Panel]:
    losses = [Series("mean of the batch", "smooth", shown.step, shown.values["loss"])]
    if query.by == "source":
        losses = [
            # Lines go on over batches without a source.
            Series(
                name,
                f"series {hue(shown.names.index(name) if name in shown.names else 7)}",
                shown.step[np.isfinite(column)],
                column[np.isfinite(column)],
            )
            for name, column in shown.by_source.items()
        ] or losses
    marks = _marks(shown)
    panels = [
        Panel("Loss by source" if query.by == "source" else "Loss", "nats per token", losses, marks, MARKED, query.log)
    ]
    for title, unit, name, log, zero in (
        ("Learning rate", "rate", "learning_rate", False, True),
        ("Gradient norm", "norm, before clipping", "grad_norm", True, False),
        ("Throughput", "tokens per second", "tokens_per_second", False, True),
    ):
        column = shown.values[name]
        if np.isfinite(column).any():
            panels.append(
                Panel(title, unit, [Series(name.replace("_", " "), "smooth", shown.step, column)], log=log, zero=zero)
            )
    return panels


MARKED = "step that changed no weights, or a row far above the others"


def _marks(shown: Shown) -> list[tuple[float, float, str]]:
    steps = [
        (float(step), float("nan"), f"step {whole(step)}: {why}") for step, why in list(shown.skipped.items())[:SPIKES]
    ]
    rows = [] if shown.worst is None else [one for one in shown.worst.rows if one.outlying]
    return steps + [
        (float(one.step), one.loss, f"row {whole(one.row)} of step {whole(one.step)}: loss {one.loss:.4g}")
        for one in rows[:SPIKES]
        if one.loss is not None
    ]


def _figure(query: StageQuery, shown: Shown, panel: Panel, name: str) -> Markup:
    band = Band(shown.stage, float(shown.first), float(max(shown.last, shown.first + 1)))
    links = _links(query, shown)
    return figure(panel.title, both(lambda width, _: series_chart(panel, [band], width, "steps", links), name))


def _links(query: StageQuery, shown: Shown) -> list[Link]:
    """Stretches of the axis: one step leads to its batch, several lead closer."""
    n = shown.last - shown.first + 1
    cuts = np.unique(np.linspace(shown.first, shown.last + 1, min(n, STRETCHES) + 1).astype(int))
    found = []
    for a, b in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
        i = min(int(np.searchsorted(shown.step, a)), len(shown.step) - 1)
        loss = f", loss {shown.values['loss'][i]:.3f}" if np.isfinite(shown.values["loss"][i]) else ""
        if b - a == 1:
            link = Link(a - 0.5, a + 0.5, address("step", stage=shown.stage, step=a), f"step {whole(a)}{loss}")
        else:
            around = query.changed(first=max(1, a - 2 * (b - a)), last=b + 2 * (b - a))
            link = Link(a, b, address("stage", **around) + "#training", f"steps {whole(a)} to {whole(b - 1)}{loss}")
        found.append(link)
    return found


def _controls(query: StageQuery, shown: Shown) -> Markup:
    n = shown.last - shown.first + 1

    def to(said: str, key: str | None = None, **values: object) -> Markup:
        href = address("stage", **query.changed(**values)) + "#training"
        return element("a", said, href=href, data_key=key)

    links: list[Markup] = []
    if n < shown.steps:
        middle = (shown.first + shown.last) // 2
        links.append(to("all steps", first=1, last=None))
        links.append(to("wider", "-", first=max(1, middle - n), last=min(shown.steps, middle + n)))
    if shown.first > 1:
        links.append(to("← earlier", "ArrowLeft", first=max(1, shown.first - n), last=max(n, shown.last - n)))
    if shown.last < shown.steps:
        last = min(shown.steps, shown.last + n)
        links.append(to("later →", "ArrowRight", first=last - n + 1, last=last))
    other = "mean" if query.by == "source" else "source"
    links.append(to("mean loss" if other == "mean" else "loss by source", by=other))
    links.append(to("linear" if query.log else "logarithmic", log=not query.log))
    form = element(
        "form",
        element("label", "steps ", element("input", type="number", name="first", value=shown.first, min=1)),
        element("label", " to ", element("input", type="number", name="last", value=shown.last, min=1)),
        element("input", type="hidden", name="by", value=query.by),
        element("button", "Show"),
        action=address("stage", stage=shown.stage),
        class_="inline",
    )
    said = f"Steps {whole(shown.first)} to {whole(shown.last)} of {whole(shown.steps)}. A click opens a step's batch"
    said += "." if n <= STRETCHES else ", here after a closer look."
    return element(
        "div", element("p", said), element("p", [[" · " if i else "", one] for i, one in enumerate(links)]), form
    )


def _skipped(shown: Shown) -> Markup | None:
    if not shown.skipped:
        return None
    rows = [
        (element("a", whole(step), href=address("step", stage=shown.stage, step=step)), why)
        for step, why in list(shown.skipped.items())[:SPIKES]
    ]
    more = len(shown.skipped) - len(rows)
    caption = "Steps that changed no weights" + (f"; {whole(more)} more in this stretch." if more else ".")
    return table([Column("step"), text("why")], rows, caption)


def _highest(shown: Shown) -> Markup | None:
    """The rows with the highest loss, each with its step and sources."""
    heading = element("h2", "Rows with the highest loss", id="rows")
    if shown.worst is None:
        return join([heading, pending("Looking through the rows …")])
    if not shown.worst.rows:
        return None
    rows = [
        (
            element("a", whole(one.row), href=address("sequence", stage=shown.stage, row=one.row))
            if one.current
            else whole(one.row),
            element("a", whole(one.step), href=address("step", stage=shown.stage, step=one.step)),
            "not finite" if one.loss is None else f"{one.loss:.4g}",
            None if one.above is None else f"{one.above:+.3g}",
            element("span", "outlying", class_="tag") if one.outlying else None,
            ", ".join(shown.of_sources.get(one.row, ())),
        )
        for one in shown.worst.rows
    ]
    columns = [
        Column("row"),
        Column("step"),
        Column("loss"),
        Column("above the step's median"),
        text("note"),
        text("sources"),
    ]
    some, more = table(columns, rows[:LISTED]), rows[LISTED:]
    outlying = f"at least {whole(ROWS)}" if shown.worst.outlying == ROWS else whole(shown.worst.outlying)
    of = counted(shown.worst.recorded, "row")
    said = f"Of {of}, {outlying} lie {DEVIATIONS:g} standard deviations above the others."
    return element(
        "section",
        heading,
        element("p", said, class_="note"),
        some,
        details(f"{whole(len(more))} more", table(columns, more)) if more else None,
    )


PAGE = Page(
    about="What a stage takes from each source; its loss by source, learning rate and gradient norm over steps; and "
    "the rows with the highest loss.",
    query=StageQuery,
    load=load,
    draw=draw,
    heading=lambda query, shown: shown.stage,
)
