"""Rows of a sequence, as text, as tokens, or as ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from headrace.report.markup import Markup, element, join
from headrace.report.numbers import whole
from headrace.view.page import Page, Query
from headrace.view.target import Missing, Target

MOST_ROWS = 64  # on one page


class Rows(Query):
    """Which rows, and how."""

    stage: str
    row: Annotated[int, Field(ge=0)] = 0
    rows: Annotated[int, Field(ge=1, le=MOST_ROWS)] = 1


@dataclass(frozen=True)
class Shown:
    """What the page shows.

    Attributes:
        stage: the sequence's name.
        of: its rows.
        first: the first row shown.
        texts: each row's text, or its ids where no tokenizer is at hand.
    """

    stage: str
    of: int
    first: int
    texts: list[str]


def load(target: Target, query: Rows) -> Shown:
    """Read the rows."""
    sequence = target.sequence(query.stage)
    if query.row >= len(sequence):
        raise Missing(f"There is no row {query.row:,}.", query.stage, f"The sequence has {len(sequence):,} rows.")
    rows = sequence.rows(query.row, min(len(sequence), query.row + query.rows))
    decoder = target.decoder(query.stage)
    texts = [
        " ".join(map(str, row.tolist())) if decoder is None else decoder.decode(row, True).decode("utf-8", "replace")
        for row in rows
    ]
    return Shown(query.stage, len(sequence), query.row, texts)


def draw(query: Rows, shown: Shown) -> Markup:
    """The rows."""
    return join(
        [
            element("section", element("h2", f"Row {whole(shown.first + i)}"), element("pre", told, class_="text"))
            for i, told in enumerate(shown.texts)
        ]
    )


PAGE = Page(
    name="sequence",
    title="Sequence",
    about="Rows of a sequence in training order, with the document behind each token.",
    query=Rows,
    load=load,
    draw=draw,
    heading=lambda query, shown: f"{shown.stage}, row {whole(shown.first)} of {whole(shown.of)}",
    serves=lambda target: True,
)
