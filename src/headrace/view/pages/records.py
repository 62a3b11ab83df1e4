"""Documents in files that no run has read: rows as they are, with what is wrong with those that cannot be read."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from headrace.documents.readers.base import TOO_LARGE, Bad, Item, Lost, Record
from headrace.documents.readers.json_values import dump
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import counted, size, whole
from headrace.report.tables import Column, details, table, text
from headrace.view.address import address
from headrace.view.layout import empty, pending
from headrace.view.page import Page, Query
from headrace.view.pages.sequence import number, step_link
from headrace.view.records import LARGEST, ROWS, RecordFiles, Rows
from headrace.view.target import Missing, Target

CUT = 2_000  # characters of a text in the list
WHOLE = 100_000  # of one alone
META = 20_000  # characters of the other fields
FILES = 200  # listed


class RecordQuery(Query):
    """Which rows of which file. ``only`` shows one row, from a character on."""

    file: Annotated[int, Field(ge=0)] = 0
    row: Annotated[int, Field(ge=0)] = 0
    text: str | None = None
    only: bool = False
    from_: Annotated[int, Field(ge=0, alias="from")] = 0


@dataclass(frozen=True)
class Shown:
    """A row.

    Attributes:
        row: its number in the file, from 0.
        text: its text, or a stretch of it; the beginning of one that is not read.
        start: the character it begins with.
        length: characters of the whole text; None of one that is not read.
        fields: the other fields as JSON; None if there are none.
        wrong: what is wrong with it; None of a document.
        rows: how many rows it stands for, all alike.
    """

    row: int
    text: str
    start: int = 0
    length: int | None = None
    fields: str | None = None
    wrong: str | None = None
    rows: int = 1


@dataclass(frozen=True)
class RecordsShown:
    """What the page shows.

    Attributes:
        files: ``{"name", "format", "compression", "bytes"}`` of the first files.
        count: how many files there are.
        file: the number of the one shown.
        field: the field that holds the text; None of conversations.
        rows: the rows; empty while they are looked for.
        next: the row after the last; None at the end.
        total: how many rows the file has, if it says so.
        searched: the row that was reached; None if the rows are there.
    """

    files: list[dict[str, Any]]
    count: int
    file: int
    field: str | None
    total: int | None
    rows: list[Shown] = dataclasses.field(default_factory=list)
    next: int | None = None
    searched: int | None = None


def load(target: Target, query: RecordQuery) -> RecordsShown:
    """Read a page of rows."""
    records = target.records
    assert records is not None
    if query.file >= len(records.files):
        raise Missing(f"There is no file {query.file:,}.", str(target.path), f"It has {len(records.files):,} files.")
    found = records.rows(query.file, query.row, query.text or None)
    about = _files(records), len(records.files), query.file
    named, format = records.text_field(query.file)
    name = query.text or (None if format == "chat" else named)
    total = records.row_count(query.file)
    if not isinstance(found, Rows):
        return RecordsShown(*about, name, total, searched=found.at)
    items = found.items[:1] if query.only else found.items
    rows = [_shown(item, query.from_ if query.only else 0, WHOLE if query.only else CUT) for item in items]
    return RecordsShown(*about, name, total, rows, found.next)


def _files(records: RecordFiles) -> list[dict[str, Any]]:
    return [
        {"name": one.name, "format": one.format, "compression": one.compression, "bytes": one.size}
        for one in records.files[:FILES]
    ]


def _shown(item: Item, start: int, most: int) -> Shown:
    if isinstance(item, Record):
        said = item.text if item.turns is None else "\n\n".join(f"{t.role}: {t.content}" for t in item.turns)
        return Shown(item.row, said[start : start + most], start, len(said), _fields(item.fields))
    if isinstance(item, Bad):
        # The limit is the viewer's, not a recipe's.
        wrong = item.error.replace(" (documents.max_document)", "")
        if item.error.startswith(TOO_LARGE):
            wrong += f". The viewer shows only the beginning of rows above {size(LARGEST)}; a run reads them whole."
        return Shown(item.row, item.excerpt, wrong=wrong, rows=item.rows)
    assert isinstance(item, Lost)
    lost = " and ".join(f"{n:,} {unit}" for n, unit in ((item.rows, "rows"), (item.bytes, "bytes")) if n)
    return Shown(item.row, item.excerpt, wrong=f"{item.error}: {lost} cannot be read. Get the file again.", rows=0)


def _fields(fields: dict[str, Any]) -> str | None:
    if not fields:
        return None
    try:
        return dump(fields, str)[: 4 * META].decode("utf-8", "replace")[:META]
    except (TypeError, ValueError, RecursionError):
        return str(fields)[:META]


def draw(query: RecordQuery, shown: RecordsShown) -> Markup:
    """The page."""
    return join(
        [
            _about(query, shown),
            _bar(query, shown),
            _body(query, shown),
            _list(query, shown),
        ]
    )


def _to(query: RecordQuery, **values: object) -> str:
    return address("records", **query.changed(**values))


def _about(query: RecordQuery, shown: RecordsShown) -> Markup:
    one = shown.files[query.file] if query.file < len(shown.files) else None
    said = [] if one is None else [one["name"], one["format"], one["compression"], size(one["bytes"])]
    rows = None if shown.total is None else counted(shown.total, "row")
    told = [part for part in (*said, rows, _field(shown)) if part]
    return element("p", " · ".join(map(str, told)), class_="lead")


def _field(shown: RecordsShown) -> str:
    return "conversations" if shown.field is None else f"text in the field {shown.field!r}"


def _bar(query: RecordQuery, shown: RecordsShown) -> Markup:
    if query.only:
        back = element("a", "← all rows", href=_to(query, only=False, from_=0), data_key="Escape")
        return element("div", element("nav", back, class_="move", aria_label="Rows"), class_="bar-of-row")
    before = _to(query, row=max(0, query.row - ROWS)) if query.row else None
    after = None if shown.next is None else _to(query, row=shown.next)
    jump = [
        *([element("input", type="hidden", name="file", value=query.file)] if query.file else []),
        number("row", "row", query.row, 0),
        element("label", "text in ", element("input", name="text", value=shown.field or "")),
        element("button", "Go"),
    ]
    return element(
        "div",
        element(
            "nav",
            step_link("previous", "rows", before, "p k"),
            step_link("next", "rows", after, "n j"),
            class_="move",
            aria_label="Rows",
        ),
        element("form", jump, method="get", action=address("records"), class_="jump"),
        class_="bar-of-row",
    )


def _body(query: RecordQuery, shown: RecordsShown) -> Markup:
    if shown.searched is not None:
        return pending(f"Looking for row {whole(query.row)}: row {whole(shown.searched)} is reached …")
    if not shown.rows:
        said = "There are no rows here." if not query.row else f"The file ends before row {whole(query.row)}."
        return empty(said, " ", element("a", "To the first row", href=_to(query, row=0)) if query.row else None)
    return join([_row(query, one) for one in shown.rows])


def _row(query: RecordQuery, one: Shown) -> Markup:
    if one.wrong is not None:
        many = f"Rows {whole(one.row)} to {whole(one.row + one.rows - 1)}" if one.rows > 1 else f"Row {whole(one.row)}"
        excerpt = element("pre", one.text, class_="text", tabindex=0) if one.text else None
        return element(
            "article", element("h2", many), element("p", one.wrong, class_="error"), excerpt, class_="record"
        )
    length = one.length or 0
    stop = one.start + len(one.text)
    more = None
    if stop < length:
        to = _to(query, row=one.row, only=True, from_=stop if query.only else 0)
        more = element("p", element("a", f"more: {counted(length - stop, 'character')}", href=to), class_="more")
    before = None
    if one.start:
        to = _to(query, from_=max(0, one.start - WHOLE))
        before = element("p", element("a", "the text before", href=to), class_="more")
    return element(
        "article",
        element("h2", element("a", f"Row {whole(one.row)}", href=_to(query, row=one.row, only=True, from_=0))),
        element("p", counted(length, "character"), class_="note"),
        before,
        element("pre", one.text, class_="text", tabindex=0),
        more,
        details("Other fields", element("pre", one.fields, class_="text", tabindex=0)) if one.fields else None,
        class_="record",
    )


def _list(query: RecordQuery, shown: RecordsShown) -> Markup | None:
    if shown.count < 2:
        return None
    rows = [
        (
            element("a", one["name"], href=_to(query, file=i, row=0), aria_current="true" if i == query.file else None),
            one["format"],
            size(one["bytes"]),
        )
        for i, one in enumerate(shown.files)
    ]
    more = f"; the first {whole(FILES)} are listed" if shown.count > FILES else ""
    body = table([text("file"), text("format"), Column("size")], rows)
    return details(f"{counted(shown.count, 'file')}{more}", body, open_=not query.row)


def _heading(query: RecordQuery, shown: RecordsShown) -> str:
    name = str(shown.files[query.file]["name"]) if query.file < len(shown.files) else f"file {whole(query.file)}"
    rows = f"row {whole(query.row)}" if query.only else f"rows from {whole(query.row)}"
    return f"{name}, {rows}"


PAGE = Page(
    about=f"Documents in files that no run has read, row by row. Of rows above {size(LARGEST)} the beginning is shown.",
    query=RecordQuery,
    load=load,
    draw=draw,
    heading=_heading,
    styles=("sequence.css",),
)
