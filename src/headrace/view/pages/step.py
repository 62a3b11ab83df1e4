"""A step of a training: its batch, its rows by their loss, and the steps around it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from headrace.report.charts.series import Link, Panel, Series, Stage, series_chart
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import counted, percent, whole
from headrace.report.tables import Column, bar, both, figure, key, table, text
from headrace.sequence.reader import SequenceReader
from headrace.sequence.windows import PADDING
from headrace.train.losses import RowLosses
from headrace.train.outcome import finite
from headrace.train.steps import Fate, Steps
from headrace.view.address import address
from headrace.view.layout import empty
from headrace.view.page import Page, Query
from headrace.view.pages.sequence import FATES, number, step_link
from headrace.view.rows import Row, Segment, outlines
from headrace.view.segments import Look, color, document
from headrace.view.target import Missing, Target

AROUND = 60  # steps on either side of the time line
MOST_AROUND = 300
MOST_ROWS = 32  # of a batch on a page
DOCUMENTS, TOKENS = 4, 40  # of a row, of a document
EXCERPT = 140  # characters


class StepQuery(Query):
    """Which step, in numbers of the training's log, from 1; and how its batch is shared."""

    stage: str
    step: Annotated[int, Field(ge=1)]
    ranks: Annotated[int, Field(ge=1)] | None = None
    batch: Annotated[int, Field(ge=1)] | None = None
    from_: Annotated[int, Field(ge=0, alias="from")] = 0
    sort: Literal["loss", "row"] = "loss"
    around: Annotated[int, Field(ge=5, le=MOST_AROUND)] = AROUND


@dataclass(frozen=True)
class OfSource:
    """What a source has of a batch.

    Attributes:
        name: the source.
        tokens: its tokens in the rows; None where they are no more.
        loss: mean loss of its targets, in nats; None where it was not recorded, or is not finite.
        targets: how many carried loss; None where it was not recorded.
    """

    name: str
    tokens: int | None
    loss: float | None
    targets: int | None


@dataclass(frozen=True)
class OfRow:
    """What was recorded of a row of a batch.

    Attributes:
        row: its number.
        loss: mean loss of its targets, in nats; None if it is not finite, or there are none.
        targets: how many carried loss.
        tokens: whether the loss of each is recorded too.
    """

    row: int
    loss: float | None
    targets: int
    tokens: bool


@dataclass(frozen=True)
class Shown:
    """What the page shows.

    Attributes:
        stage: the stage's name.
        step: the step.
        first: the first step that is known.
        last: the last step.
        done: the last step done.
        fate: what became of the step.
        trained: whether a training is known.
        stretches: ``{"trajectory", "first", "last", "current"}`` of each trajectory, oldest first.
        rows: the step's rows ``[start, stop)``.
        current: whether they are of the sequence as it is now.
        ranks: among how many ranks the batch is shared.
        recorded: among how many it was, if that is known.
        log: the step's line of the log; None if it was not logged.
        spike: the record of an outlying step.
        sources: what each source has of it.
        names: the names of all sources, in the order of their colors.
        recorded_rows: all rows of the batch with their losses, highest first, what is not finite before them; None
            where they were not recorded.
        batch: rows of the batch, from ``from`` on, in the order of ``sort``; empty where they are no more.
        documents: whether there are pages of documents.
        steps, losses: of the time line.
        outlying: step -> (loss, what became of it) of the spikes there.
    """

    stage: str
    step: int
    first: int
    last: int
    done: int
    fate: Fate
    trained: bool
    stretches: list[dict[str, Any]]
    rows: tuple[int, int]
    current: bool
    ranks: int
    recorded: int | None
    log: dict[str, Any] | None
    spike: dict[str, Any] | None
    sources: list[OfSource]
    names: list[str]
    recorded_rows: list[OfRow] | None
    batch: list[Row]
    documents: bool
    steps: list[int]
    losses: list[float | None]
    outlying: dict[int, tuple[float | None, str]]


def load(target: Target, query: StepQuery) -> Shown:
    """Read the batch and the lines of the log around the step."""
    sequence, steps = target.sequence(query.stage), target.steps(query.stage, query.batch)
    stretch = steps.at(query.step)
    if stretch is None:
        raise Missing(
            f"There is no step {query.step:,}.", query.stage, f"Its steps are {steps.first:,} to {steps.last:,}."
        )
    first, stop = stretch.rows(query.step)
    current = stretch.current and stop <= len(sequence)
    losses, tokens = stretch.row_losses(query.step), stretch.token_losses(query.step)
    rows = None if losses is None else _by_loss(losses, first, tokens)
    order = [one.row for one in rows] if rows is not None and query.sort == "loss" else list(range(first, stop))
    batch, some = [], order[query.from_ : query.from_ + MOST_ROWS]
    if current and some:
        batch = outlines(target, query.stage, some, DOCUMENTS, TOKENS, target.decoder(query.stage), tokens)
    around = steps.log(query.step - query.around, query.step + query.around)
    line = next((one for one in around if one["step"] == query.step), None)
    spike = stretch.spikes.get(query.step)
    recorded = stretch.ranks(query.step)
    return Shown(
        query.stage,
        query.step,
        steps.first,
        steps.last,
        steps.done,
        steps.fate(query.step),
        stretch.trajectory is not None,
        [{"trajectory": s.trajectory, "first": s.first, "last": s.last, "current": s.current} for s in steps.stretches],
        (first, stop),
        current,
        query.ranks or recorded or 1,
        recorded,
        line,
        spike,
        _sources(line, spike, _tokens(sequence, first, stop) if current else {}),
        target.sources,
        rows,
        batch,
        target.documents is not None,
        [int(one["step"]) for one in around],
        [one["loss"] for one in around],
        _outlying(steps, query.step - query.around, query.step + query.around),
    )


def _by_loss(losses: RowLosses, first: int, tokens: Collection[int]) -> list[OfRow]:
    told = [finite(loss) for loss in losses.loss.tolist()]
    return [OfRow(first + i, told[i], int(losses.targets[i]), first + i in tokens) for i in losses.order.tolist()]


def _tokens(sequence: SequenceReader, first: int, stop: int) -> dict[str, int]:
    """The tokens of each source in some rows; nothing where the files do not tell."""
    found = sequence.segments_in(first, stop)
    if found is None or "source" not in found.columns or not sequence.sources:
        return {}
    part = slice(int(found.bounds[0]), int(found.bounds[-1]))
    kind, source, length = (found.columns[name][part] for name in ("kind", "source", "length"))
    real = kind != PADDING
    sums = np.bincount(source[real], weights=length[real], minlength=len(sequence.sources))
    return {name: int(n) for name, n in zip(sequence.sources, sums, strict=False) if n}


def _sources(line: dict[str, Any] | None, spike: dict[str, Any] | None, tokens: dict[str, int]) -> list[OfSource]:
    told = {} if line is None else line.get("sources", {})
    losses = {name: one.get("loss") for name, one in told.items()} or ({} if spike is None else spike["sources"])
    names = dict.fromkeys([*tokens, *losses])
    return [
        OfSource(name, tokens.get(name), losses.get(name), told.get(name, {}).get("tokens")) for name in names
    ]  # fmt: skip


def _outlying(steps: Steps, first: int, last: int) -> dict[int, tuple[float | None, str]]:
    return {
        step: (spike["loss"], f"{spike['reason']}, {ACTIONS[spike['action']]}")
        for stretch in steps.stretches
        for step, spike in stretch.spikes.items()
        if first <= step <= last and stretch.first <= step <= stretch.last
    }


ACTIONS = {"skip": "skipped", "rollback": "rolled back", "stop": "the run stopped"}
"""What was done about an outlying step."""


def draw(query: StepQuery, shown: Shown) -> Markup:
    """The page."""
    return join(
        [
            _bar(query, shown),
            _became(shown),
            _tiles(shown),
            _time_line(query, shown),
            _by_source(shown),
            _batch(query, shown),
        ]
    )


def _to(query: StepQuery, **values: object) -> str:
    return address("step", **query.changed(**values))


def _bar(query: StepQuery, shown: Shown) -> Markup:
    back = _to(query, step=shown.step - 1, from_=0) if shown.step > shown.first else None
    on = _to(query, step=shown.step + 1, from_=0) if shown.step < shown.last else None
    whole_batch = address("sequence", stage=shown.stage, step=shown.step, batch=query.batch)
    return element(
        "div",
        element(
            "nav",
            step_link("previous", "step", back, "p k"),
            step_link("next", "step", on, "n j"),
            class_="move",
            aria_label="Steps",
        ),
        element(
            "nav",
            element("a", "its rows, token by token", href=whole_batch) if shown.current else None,
            element("a", f"all of {shown.stage}", href=address("stage", stage=shown.stage)) if shown.trained else None,
            aria_label="From here",
        ),
        class_="bar-of-row",
    )


def _became(shown: Shown) -> Markup:
    """What became of the step, in words."""
    said: list[object] = []
    if shown.spike is not None:
        action = ACTIONS[shown.spike["action"]]
        said.append(element("p", element("strong", f"Outlying ({shown.spike['reason']}): {action}."), class_="error"))
    elif shown.trained:
        skipped = (shown.log or {}).get("skipped")
        word = f"It changed no weights: {skipped}." if skipped else f"{FATES[shown.fate].capitalize()}."
        said.append(element("p", word))
    else:
        said.append(element("p", "Nobody trains on these rows here: steps are batches of rows, in their order."))
    if len(shown.stretches) > 1:
        parts = [
            element(
                "li",
                f"steps {whole(one['first'])} to {whole(one['last'])}: trajectory ",
                element("code", one["trajectory"]),
                "" if one["current"] else ", on rows of a sequence that has been replaced since",
                ", which this step belongs to" if one["first"] <= shown.step <= one["last"] else "",
            )
            for one in shown.stretches
        ]
        said.append(element("p", "The recipe was edited while this stage was trained:"))
        said.append(element("ul", parts))
    return join(said)


def _tiles(shown: Shown) -> Markup:
    line, first, stop = shown.log or {}, *shown.rows
    loss = line.get("loss") if shown.spike is None else shown.spike["loss"]
    norm = line.get("grad_norm") if shown.spike is None else shown.spike["grad_norm"]
    tiles = [("rows", f"{whole(first)} to {whole(stop - 1)}", f"a batch of {whole(stop - first)}")]
    if shown.log is not None or shown.spike is not None:
        tiles.append(("loss", _figure(loss, shown.spike), "nats per token"))
        tiles.append(("gradient norm", _figure(norm, shown.spike), "before clipping"))
    if line.get("learning_rate") is not None:
        tiles.append(("learning rate", f"{line['learning_rate']:.3g}", ""))
    if line.get("loss_tokens") is not None:
        tiles.append(("targets", whole(line["loss_tokens"]), "carried loss"))
    if line.get("seconds") is not None:
        tiles.append(("time", f"{line['seconds']:.2f} s", f"{whole(line.get('tokens_per_second') or 0)} tokens/s"))
    drawn = [
        element(
            "div", element("dt", name), element("dd", value, element("small", note) if note else None), class_="tile"
        )
        for name, value, note in tiles
    ]
    return element("dl", drawn, class_="tiles")


def _figure(value: float | None, spike: dict[str, Any] | None) -> str:
    return ("not finite" if spike is not None else "–") if value is None else f"{value:.4g}"


def _time_line(query: StepQuery, shown: Shown) -> Markup | None:
    """The loss around the step; each step is a link to its page."""
    if not shown.steps:
        return empty("No loss was logged around this step.") if shown.trained else None
    x = np.array(shown.steps, dtype=np.float64)
    y = np.array([np.nan if loss is None else loss for loss in shown.losses])
    marks = [
        (float(step), np.nan if loss is None else loss, f"step {whole(step)}: {why}")
        for step, (loss, why) in shown.outlying.items()
    ]
    if not np.isfinite(y).any() and not any(np.isfinite(mark[1]) for mark in marks):
        return empty("No loss around this step is finite.")
    panel = Panel("Loss", "nats per token", [Series("loss of a step", "smooth", x, y)], marks, "outlying step")
    low, high = min(x[0], shown.step) - 0.5, max(x[-1], shown.step) + 0.5
    bands = [
        Stage("", low, shown.step - 0.5),
        Stage(f"step {whole(shown.step)}", shown.step - 0.5, shown.step + 0.5),
        Stage("", shown.step + 0.5, high),
    ]
    links = [
        Link(step - 0.5, step + 0.5, _to(query, step=step, from_=0), _tip(shown, step, loss))
        for step, loss in zip(shown.steps, shown.losses, strict=True)
    ]
    drawn = both(lambda width, _: series_chart(panel, bands, width, "steps", links), "around")
    wider, closer = min(MOST_AROUND, query.around * 3), max(5, query.around // 3)
    zoom = [
        element("a", "closer", href=_to(query, around=closer), data_key="+") if closer < query.around else None,
        " ",
        element("a", "wider", href=_to(query, around=wider), data_key="-") if wider > query.around else None,
    ]
    return join([figure("Loss of the steps around", drawn), element("p", zoom, class_="note")])


def _tip(shown: Shown, step: int, loss: float | None) -> str:
    told = f"step {whole(step)}" + ("" if loss is None else f", loss {loss:.4g}")
    return told if step not in shown.outlying else f"{told}, {shown.outlying[step][1]}"


def _by_source(shown: Shown) -> Markup | None:
    if not shown.sources:
        return None
    total = sum(one.tokens or 0 for one in shown.sources)
    rows = [
        (
            key(one.name, shown.names.index(one.name)) if one.name in shown.names else one.name,
            None if one.tokens is None else whole(one.tokens),
            None if one.tokens is None else percent(one.tokens, total),
            None if one.targets is None else whole(one.targets),
            None if one.loss is None else f"{one.loss:.4g}",
        )
        for one in shown.sources
    ]
    columns = [text("source"), *map(Column, ("tokens", "share", "targets with loss", "loss, nats per token"))]
    return element("section", element("h2", "By source"), table(columns, rows))


def _batch(query: StepQuery, shown: Shown) -> Markup:
    first, stop = shown.rows
    if not shown.current:
        said = empty("The recipe was edited after this step, and the sequence it read has been replaced.")
        return element("section", element("h2", "Batch"), said)
    form = element(
        "form",
        number("shared among", "ranks", shown.ranks, 1),
        element("span", "ranks", class_="muted"),
        element("input", type="hidden", name="batch", value=query.batch) if query.batch else None,
        element("button", "Show"),
        element("span", f"It was shared among {shown.recorded}.", class_="muted") if shown.recorded else None,
        method="get",
        class_="jump",
    )
    look = Look("text", shown.names, shown.documents)
    told = {one.row: one for one in shown.recorded_rows or ()}
    highest = max((one.loss or 0.0 for one in told.values()), default=0.0)
    columns = [Column("row"), Column("loss"), Column("targets"), Column("rank"), Column("documents"), text(BEGINS)]
    rows = [
        (
            _row_link(shown, row, told.get(row.row)),
            _loss(told.get(row.row), highest),
            whole(told[row.row].targets) if row.row in told else None,
            _rank(shown, row),
            whole(row.documents),
            _begin(look, row),
        )
        for row in shown.batch
    ]
    size = stop - first
    more = None
    if query.from_ + len(shown.batch) < size:
        left = size - query.from_ - len(shown.batch)
        href = _to(query, from_=query.from_ + len(shown.batch))
        more = element("p", element("a", f"more: {counted(left, 'row')}", href=href))
    return element("section", element("h2", "Batch"), form, _sorting(query, shown), table(columns, rows), more)


BEGINS = "begins with"


def _sorting(query: StepQuery, shown: Shown) -> Markup | None:
    """In which order rows are, and in which else they can be."""
    if shown.recorded_rows is None:
        return element("p", "The losses of its rows were not recorded.", class_="note") if shown.log else None
    known = [one.loss for one in shown.recorded_rows if one.loss is not None]
    spread = f" From {min(known):.4g} to {max(known):.4g} nats, median {np.median(known):.4g}." if known else ""
    other = "row" if query.sort == "loss" else "loss"
    said = "Highest loss first" if query.sort == "loss" else "In the order of the sequence"
    link = element("a", f"by {other}", href=_to(query, sort=other, from_=0))
    return element("p", f"{said}; ", link, f".{spread}", class_="note")


def _loss(one: OfRow | None, highest: float) -> Markup | str | None:
    if one is None or not one.targets:
        return None
    return "not finite" if one.loss is None else join([f"{one.loss:.4g}", bar(one.loss, highest)])


def _row_link(shown: Shown, row: Row, told: OfRow | None) -> Markup:
    color = "loss" if told is not None and told.tokens else None
    return element("a", whole(row.row), href=address("sequence", stage=shown.stage, row=row.row, color=color))


def _rank(shown: Shown, row: Row) -> str:
    first, stop = shown.rows
    # The inverse of what a loader takes as its share: the last rank whose rows begin at or before this one.
    rank = ((row.row - first + 1) * shown.ranks - 1) // (stop - first)
    return whole(rank)


def _begin(look: Look, row: Row) -> Markup:
    """The beginnings of a row's first documents, or of those with the highest loss."""
    lines = [
        element(
            "p",
            element("span", class_=f"key {color(look, one)}"),
            element("strong", one.source or "text"),
            [" ", document(look, one)] if one.document is not None else None,
            f" {one.license}" if one.license else None,
            f" loss {one.loss:.4g}" if one.loss is not None else None,
            element("code", _excerpt(one)),
            class_="begins",
        )
        for one in row.segments
    ]
    more = row.documents - len(row.segments)
    return join([*lines, element("p", f"and {counted(more, 'more document')}", class_="begins") if more > 0 else None])


def _excerpt(one: Segment) -> str:
    said = "".join(run.text if run.text is not None else " ".join(map(str, run.ids)) for run in one.runs)
    said = " ".join(said.split())
    return said if len(said) <= EXCERPT else said[:EXCERPT] + "…"


PAGE = Page(
    name="step",
    title="Step",
    about="The batch of a training step: its rows, those with the highest loss first where it was recorded, their "
    "documents and licenses, loss by source, and the steps around it.",
    query=StepQuery,
    load=load,
    draw=draw,
    heading=lambda query, shown: f"{shown.stage}, step {whole(shown.step)} of {whole(shown.last)}",
    serves=lambda target: bool(target.sequences),
    styles=("sequence.css",),
)
