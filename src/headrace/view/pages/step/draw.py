"""How a step is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.report.charts.series import Link, Panel, Series, Stage, series_chart
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import counted, percent, whole
from headrace.report.tables import Column, bar, both, figure, key, table, text
from headrace.view.address import address
from headrace.view.layout import empty
from headrace.view.pages.sequence import FATES, number, step_link
from headrace.view.pages.step.load import ACTIONS, MOST_AROUND, OfRow, Shown, StepQuery
from headrace.view.rows import Row, Segment
from headrace.view.segments import Look, color, document

BEGINS = "begins with"
EXCERPT = 140  # characters


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
