"""The first page of a target that is no run: what was opened, and where to go from here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headrace.errors import UserError
from headrace.formats.opening import format_name
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import counted, size, whole
from headrace.report.palette import hue
from headrace.report.tables import Column, table, text
from headrace.sequence.reader import SequenceReader
from headrace.view import layout
from headrace.view.address import address
from headrace.view.page import Page, Query
from headrace.view.pages import records
from headrace.view.pages.records import RecordQuery, RecordsShown
from headrace.view.target import Target


@dataclass(frozen=True)
class OpenedSequence:
    """A sequence.

    Attributes:
        name: its name here.
        rows: how many it has.
        row_length: tokens of a row.
        sources: their names.
        vocab_size: one more than the largest id; None if the files do not tell.
        digest: of its rows; None if the files do not tell.
        segments: whether the files tell where documents begin and end.
        decoded: whether a tokenizer is at hand.
        wrong: what is wrong with it, if it cannot be opened; the rest is empty then.
    """

    name: str
    rows: int
    row_length: int
    sources: list[str]
    vocab_size: int | None
    digest: str | None
    segments: bool
    decoded: bool
    wrong: dict[str, str] | None = None


@dataclass(frozen=True)
class Opened:
    """What the page shows.

    Attributes:
        name: of the file or folder.
        path: where it lies.
        format: its format.
        files: how many files of rows there are.
        bytes: their size.
        sequences: what they hold.
        sources: all sources, in the order of their colors.
        records: the first rows, if these are documents.
    """

    name: str
    path: str
    format: str
    files: int
    bytes: int
    sequences: list[OpenedSequence]
    sources: list[str]
    records: RecordsShown | None


def load(target: Target, query: Query) -> Opened:
    """Look at what was opened."""
    about = target.name, str(target.path)
    if target.records is not None:
        first = records.load(target, RecordQuery())
        formats = ", ".join(dict.fromkeys(one.format for one in target.records.files))
        total = sum(one.size for one in target.records.files)
        return Opened(*about, formats, len(target.records.files), total, [], [], first)
    found = [_sequence(target, name) for name in target.sequences]
    sizes = target.file_sizes
    return Opened(*about, format_name(target.path), len(sizes), sum(sizes), found, target.sources, None)


def _sequence(target: Target, name: str) -> OpenedSequence:
    try:
        sequence = target.sequence(name)
        digest = None if sequence.fingerprint is None else str(sequence.fingerprint["digest"])
        segments = len(sequence) > 0 and sequence.segments(0) is not None
        return OpenedSequence(name, *_shape(sequence), digest, segments, target.decoder(name) is not None)
    except UserError as error:
        wrong = {"what": error.what, "where": error.where, "fix": error.fix}
        return OpenedSequence(name, 0, 0, [], None, None, False, False, wrong)


def _shape(sequence: SequenceReader) -> tuple[int, int, list[str], int | None]:
    return len(sequence), sequence.seq_len + 1, list(sequence.sources), sequence.vocab_size


def draw(query: Query, shown: Opened) -> Markup:
    """The page."""
    tiles = [
        ("format", shown.format, ""),
        ("files", whole(shown.files), size(shown.bytes)),
    ]
    if shown.sequences:
        tiles.append(("rows", whole(sum(one.rows for one in shown.sequences)), ""))
        tiles.append(("tokens", whole(sum(one.rows * one.row_length for one in shown.sequences)), ""))
    drawn = [
        element(
            "div", element("dt", name), element("dd", value, element("small", note) if note else None), class_="tile"
        )
        for name, value, note in tiles
    ]
    head = join([element("p", element("code", shown.path)), element("dl", drawn, class_="tiles")])
    if shown.records is not None:
        return join([head, records.draw(RecordQuery(), shown.records)])
    return join([head, _sequences(shown), [_wrong(one) for one in shown.sequences if one.wrong is not None]])


def _sequences(shown: Opened) -> Markup:
    good = [one for one in shown.sequences if one.wrong is None]
    columns = [
        text("sequence"),
        *map(Column, ("rows", "tokens of a row", "vocabulary")),
        text("sources"),
        text("documents"),
        text("tokenizer"),
        text("digest"),
    ]
    rows: list[tuple[Any, ...]] = [
        (
            element("a", one.name, href=address("sequence", stage=one.name)),
            whole(one.rows),
            whole(one.row_length),
            None if one.vocab_size is None else whole(one.vocab_size),
            _sources(shown, one) if one.sources else None,
            "borders known" if one.segments else "as tokens tell",
            "at hand" if one.decoded else "give it with --tokenizer",
            None if one.digest is None else element("code", one.digest[:16]),
        )
        for one in good
    ]
    note = f"{counted(len(good), 'sequence')}. A row has one token more than it has targets."
    return element("section", element("h2", "Sequences"), table(columns, rows), element("p", note, class_="note"))


def _sources(shown: Opened, one: OpenedSequence) -> Markup:
    return join(
        [
            [element("span", class_=f"key {hue(shown.sources.index(name))}"), name, " "]
            for name in one.sources
            if name in shown.sources
        ]
    )


def _wrong(one: OpenedSequence) -> Markup:
    told = one.wrong or {}
    return element("section", element("h2", one.name), layout.error(told["what"], told["where"], told["fix"]))


PAGE = Page(
    about="What was opened: format, rows, length, sources; or the first documents.",
    query=Query,
    load=load,
    draw=draw,
    heading=lambda query, shown: shown.name,
    styles=("sequence.css",),
)
