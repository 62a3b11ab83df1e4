"""Rows of a sequence as text, tokens or ids, with the document behind each token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from headrace.errors import UserError
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import counted, whole
from headrace.report.tables import Column, details, table, text
from headrace.train.steps import Leg, Taken
from headrace.view.address import address
from headrace.view.layout import empty
from headrace.view.page import Page, Query
from headrace.view.rows import Row, read_rows
from headrace.view.segments import Look, View, color, document, legend, segment
from headrace.view.target import Missing, Target

MOST_ROWS = 64  # on one page
SHOWN = {"text": 24_576, "tokens": 2_304, "ids": 4_096}  # tokens on one page: about 500, 500 and 700 kB of HTML
HINT = "Point at a token, or use the arrow keys among them."
LEAST = 32  # tokens of a row, however many rows there are
FATES = {
    "trained": "trained on",
    "skipped": "skipped as outlying",
    "left_out": "left out by the recipe",
    "left": "still to come",
    "unused": "in no step",
}


class Rows(Query):
    """Which rows, and how. A step, with the rank and the number of ranks, goes before a row."""

    stage: str
    row: Annotated[int, Field(ge=0)] = 0
    rows: Annotated[int, Field(ge=1, le=MOST_ROWS)] = 1
    view: View = "tokens"
    color: Literal["document", "loss"] = "document"
    from_: Annotated[int, Field(ge=0, alias="from")] = 0
    token: Annotated[int, Field(ge=0)] | None = None
    step: Annotated[int, Field(ge=1)] | None = None
    rank: Annotated[int, Field(ge=0)] = 0
    ranks: Annotated[int, Field(ge=1)] = 1
    batch: Annotated[int, Field(ge=1)] | None = None


@dataclass(frozen=True)
class Shown:
    """What the page shows.

    Attributes:
        stage: the sequence's name.
        sequences: the names of all.
        of: how many rows it has.
        row_length: tokens of a row.
        sources: the names of all sources, in the order of their colors.
        rows: the rows, or a stretch of each.
        taken: which step took or will take each.
        losses: the mean loss of each in nats as its step recorded it; None where it was not, or is not finite.
        left: rows of the step that are not shown.
        trained: whether a training is known that takes these rows.
        last_step: the last step.
        batch: rows of a step.
        documents: whether there are pages of documents.
        decoded: whether a tokenizer is at hand.
    """

    stage: str
    sequences: list[str]
    of: int
    row_length: int
    sources: list[str]
    rows: list[Row]
    taken: list[Taken]
    losses: list[float | None]
    left: int
    trained: bool
    last_step: int
    batch: int
    documents: bool
    decoded: bool


def load(target: Target, query: Rows) -> Shown:
    """Read the rows."""
    sequence = target.sequence(query.stage)
    steps = target.steps(query.stage, query.batch)
    first, stop = _wanted(query, len(sequence), None if query.step is None else steps.at(query.step), steps.last)
    if first >= len(sequence):
        raise Missing(f"There is no row {first:,}.", query.stage, f"The sequence has {len(sequence):,} rows.")
    until = min(stop, first + MOST_ROWS, len(sequence))
    decoder = target.decoder(query.stage)
    view = _view(query)
    count = max(LEAST, SHOWN[view] // (until - first))
    place = query.from_
    if query.token is not None and not place <= query.token < place + count:
        place = query.token - query.token % count
    if max(place, query.token or 0) > sequence.seq_len:
        raise Missing(
            f"There is no token {max(place, query.token or 0):,} in a row.",
            query.stage,
            f"Its rows have {sequence.seq_len + 1:,} tokens, counted from 0.",
        )
    each = view != "text"
    taken = steps.of_rows(range(first, until))
    tokens = {row: each for one in taken for row, each in steps.token_losses(one).items()}
    about = target, query.stage, range(first, until), place, count
    try:
        rows = read_rows(*about, decoder, each, tokens)
    except UserError:
        if query.view != "ids" or decoder is None:
            raise
        rows = read_rows(*about, None, each, tokens)  # of another tokenizer
    return Shown(
        query.stage,
        target.sequences,
        len(sequence),
        sequence.seq_len + 1,
        target.sources,
        rows,
        taken,
        [steps.row_loss(one) for one in taken],
        min(stop, len(sequence)) - until,
        steps.legs[-1].trajectory is not None,
        steps.last,
        steps.legs[-1].batch,
        target.documents is not None,
        decoder is not None,
    )


def _view(query: Rows) -> View:
    """As what rows are shown: losses are those of tokens."""
    return "tokens" if query.color == "loss" and query.view == "text" else query.view


def _wanted(query: Rows, rows: int, leg: Leg | None, last: int) -> tuple[int, int]:
    """The rows ``[first, stop)`` that are asked for."""
    if query.step is None:
        return query.row, query.row + query.rows
    if leg is None:
        raise Missing(f"There is no step {query.step:,}.", query.stage, f"The last is step {last:,}.")
    if not leg.current:
        raise Missing(
            f"The rows of step {query.step:,} are no more.",
            query.stage,
            "The recipe was edited after it, and its sequence has been replaced.",
        )
    first, stop = share(*leg.rows(query.step), query.rank, query.ranks)
    if query.rank >= query.ranks or first == stop:
        raise Missing(
            f"Rank {query.rank:,} of {query.ranks:,} has no rows in a batch of {leg.batch:,}.",
            query.stage,
            "Ranks count from 0.",
        )
    return first, stop


def share(first: int, stop: int, rank: int, ranks: int) -> tuple[int, int]:
    """The rows of a rank among those of a batch, as :meth:`headrace.sequence.loader.Loader.share` has them."""
    rows = stop - first
    return first + rank * rows // ranks, first + (rank + 1) * rows // ranks


def draw(query: Rows, shown: Shown) -> Markup:
    """The page."""
    look = Look(_view(query), shown.sources, shown.documents, query.token, query.color == "loss")
    return join(
        [
            _bar(query, shown),
            legend(look, shown.rows),
            None if shown.decoded else empty(
                "No tokenizer is at hand, so these are ids. Give the one they were made with: ",
                element("code", "headrace view TARGET --tokenizer FILE"),
            ),
            [_row(query, shown, look, i) for i in range(len(shown.rows))],
            _rest(query, shown),
            element("p", HINT, id="token", class_="token", hidden=True),
        ]
    )  # fmt: skip


def _to(query: Rows, **values: object) -> str:
    """This page with some fields changed."""
    return address("sequence", **query.changed(**values))


NO_STEP = {"step": None, "rank": 0, "ranks": 1}


def _bar(query: Rows, shown: Shown) -> Markup:
    """Where to go from here."""
    first, last = shown.rows[0].row, shown.rows[-1].row
    if query.step is not None:
        back = _to(query, step=query.step - 1, token=None, from_=0) if query.step > 1 else None
        on = _to(query, step=query.step + 1, token=None, from_=0) if query.step < shown.last_step else None
        unit = "step"
    else:
        back = _to(query, row=max(0, first - query.rows), token=None) if first else None
        on = _to(query, row=last + 1, token=None) if last + 1 < shown.of else None
        unit = "row" if query.rows == 1 else "rows"
    views = [
        element("a", one, href=_to(query, view=one), aria_current="true" if one == query.view else None)
        for one in ("text", "tokens", "ids")
    ]
    others = [
        element("a", name, href=address("sequence", stage=name, view=_but_default(query)))
        for name in shown.sequences
        if name != query.stage
    ]
    move = [step_link("previous", unit, back, "p k"), step_link("next", unit, on, "n j")]
    return element(
        "div",
        element("nav", move, class_="move", aria_label="Rows"),
        element("nav", element("span", "as", class_="muted"), views, class_="views", aria_label="Shown as"),
        _colors(query, shown),
        element("form", _jump_to_row(query, shown), method="get", class_="jump"),
        element("form", _jump_to_step(query, shown), method="get", class_="jump"),
        element("nav", element("span", "Other sequences:", class_="muted"), others, aria_label="Sequences")
        if others
        else None,
        class_="bar-of-row",
    )


def _colors(query: Rows, shown: Shown) -> Markup | None:
    """By what tokens are colored: where losses were recorded, or asked for."""
    recorded = any(run.losses for row in shown.rows for one in row.segments for run in one.runs)
    if not recorded and query.color == "document":
        return None
    links = [
        element("a", one, href=_to(query, color=one), aria_current="true" if one == query.color else None)
        for one in ("document", "loss")
    ]
    none = None if recorded else element("span", "The losses of these tokens were not recorded.", class_="muted")
    name = element("span", "colored by", class_="muted")
    return element("nav", name, links, none, class_="views", aria_label="Colored by")


def _but_default(query: Rows) -> str | None:
    return None if query.view == "tokens" else query.view


def _colored(query: Rows) -> str | None:
    return None if query.color == "document" else query.color


def step_link(word: str, unit: str, href: str | None, key: str) -> Markup:
    """A link to the previous or the next one, also by key; grey at the end."""
    arrow = "←" if word == "previous" else "→"
    said = [arrow, f" {word} {unit}"] if word == "previous" else [f"{word} {unit} ", arrow]
    if href is None:
        return element("span", said, class_="off")
    return element("a", said, element("kbd", key.split(" ")[0], aria_hidden="true"), href=href, data_key=key)


def number(label: str, name: str, value: object, least: int, most: int | None = None) -> Markup:
    """A field of a form for a whole number."""
    about: dict[str, object] = {"min": least, "max": most, "aria_label": name, "required": True}
    field = element("input", type="number", name=name, value=value, **about)
    return element("label", label, " ", field)


def kept(**values: object) -> list[Markup]:
    """Hidden fields of a form; None is left out."""
    return [element("input", type="hidden", name=k, value=v) for k, v in values.items() if v is not None]


def _jump_to_row(query: Rows, shown: Shown) -> list[Markup]:
    return [
        *kept(view=_but_default(query), color=_colored(query), batch=query.batch),
        number("row", "row", shown.rows[0].row, 0, shown.of - 1),
        number("rows", "rows", query.rows, 1, MOST_ROWS),
        element("button", "Go"),
    ]


def _jump_to_step(query: Rows, shown: Shown) -> list[Markup]:
    step = query.step or next((one.step for one in shown.taken if one.step is not None), 1)
    fields = [number("step", "step", step, 1, shown.last_step)]
    if not shown.trained:
        fields.append(number("of", "batch", shown.batch, 1))
        fields.append(element("span", "rows", class_="muted"))
    return [
        *kept(view=_but_default(query), color=_colored(query)),
        *fields,
        number("rank", "rank", query.rank, 0),
        number("of", "ranks", query.ranks, 1),
        element("button", "Go"),
    ]


def _row(query: Rows, shown: Shown, look: Look, i: int) -> Markup:
    row, taken, loss = shown.rows[i], shown.taken[i], shown.losses[i]
    step: list[object] | None = None
    if taken.step is not None and (shown.trained or query.batch is not None or query.step is not None):
        href = address("step", stage=shown.stage, step=taken.step, batch=query.batch)
        step = [
            element("a", f"step {whole(taken.step)}", href=href),
            f" ({FATES[taken.fate]}), " if shown.trained else ", ",
        ]
    elif shown.trained:
        step = [f"{FATES[taken.fate]}, "]
    head = element(
        "p",
        step,
        counted(row.documents, "document"),
        f", tokens {whole(row.start)} to {whole(row.stop - 1)} of {whole(row.length)}",
        None if loss is None else f", loss {loss:.4g}",
        class_="lead",
    )
    heading = None if len(shown.rows) == 1 else element(
        "h2", element("a", f"Row {whole(row.row)}", href=_to(query, row=row.row, rows=1, **NO_STEP))
    )  # fmt: skip
    body = [segment(look, one) for one in row.segments]
    size = row.stop - row.start
    one_row = {**NO_STEP, "row": row.row, "rows": 1, "token": None}
    before = after = None
    if row.start:
        href = _to(query, **one_row, from_=max(0, row.start - size))
        before = element("p", element("a", "the tokens before", href=href), class_="more")
    if row.stop < row.length:
        href = _to(query, **one_row, from_=row.stop)
        after = element("p", element("a", f"more: {counted(row.length - row.stop, 'token')}", href=href), class_="more")
    tokens = element(
        "div",
        body,
        class_=f"tokens as-{look.view}{' by-loss' if look.loss else ''}",
        tabindex=0,
        role="group",
        aria_label=f"Row {whole(row.row)} as {look.view}",
    )
    return element("section", heading, head, _list(query, look, row), before, tokens, after, class_="shown-row")


def _list(query: Rows, look: Look, row: Row) -> Markup:
    """The segments of a row as a table."""
    columns = [Column("tokens"), text("source"), text("document"), Column("from its token"), Column("copy"),
               text("kind"), text("license"), text("origin"), Column("loss")]  # fmt: skip
    cells = [
        (
            element("a", f"{whole(one.start)} to {whole(one.start + one.length - 1)}", href=_to(
                query, row=row.row, rows=1, from_=0, token=one.start, **NO_STEP)),
            None if one.source is None else join(
                [element("span", class_=f"key {color(look, one)}"), one.source]),
            None if one.document is None else document(look, one),
            None if one.offset is None else whole(one.offset),
            None if one.epoch is None else whole(one.epoch + 1),
            one.kind,
            one.license,
            one.origin if one.path is None else f"{one.repo or ''} {one.path}".strip(),
            None if one.loss is None else f"{one.loss:.4g}",
        )
        for one in row.segments
    ]  # fmt: skip
    shown_of = "" if len(row.segments) >= row.documents else f" ({whole(len(row.segments))} shown)"
    summary = f"{counted(row.documents, 'document')}{shown_of}"
    return details(summary, table(columns, cells))


def _rest(query: Rows, shown: Shown) -> Markup | None:
    if shown.left <= 0:
        return None
    after = shown.rows[-1].row + 1
    href = _to(query, row=after, rows=min(shown.left, MOST_ROWS), from_=0, token=None, **NO_STEP)
    return element("p", element("a", f"{counted(shown.left, 'more row')} of the step", href=href), class_="more")


def _heading(query: Rows, shown: Shown) -> str:
    first, last = shown.rows[0].row, shown.rows[-1].row
    rows = f"row {whole(first)}" if first == last else f"rows {whole(first)} to {whole(last)}"
    step = "" if query.step is None else f", step {whole(query.step)}"
    rank = "" if query.ranks == 1 else f", rank {whole(query.rank)} of {whole(query.ranks)}"
    return f"{shown.stage}{step}{rank}: {rows} of {whole(shown.of)}"


PAGE = Page(
    about="Rows of a sequence in training order as text, tokens or ids, with the document behind each token, and its "
    "loss where that was recorded.",
    query=Rows,
    load=load,
    draw=draw,
    heading=_heading,
    styles=("sequence.css",),
    scripts=("sequence.js",),
)
