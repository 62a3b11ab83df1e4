"""Comma- and tab-separated values (RFC 4180): the first record names the fields, every other one is a document."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from functools import partial

from headrace.documents.file_names import suffixes
from headrace.documents.readers.base import Bad, Item, Lost, Part, Reader, Skipped, Tally, document, excerpt
from headrace.documents.readers.jsonl import BOM, Shape, broken_off
from headrace.documents.readers.side_fields import distinct
from headrace.documents.readers.streams import Damaged, Overlong, blocks, split_lines
from headrace.documents.sources import InputFile
from headrace.errors import UserError
from headrace.recipe.schema import Source


class Csv(Reader):
    """One document per record, numbered by the line it starts in, counting the header as 0; all values are text."""

    def read(self, file: InputFile, part: Part, source: Source, tally: Tally) -> Iterator[Item]:
        """One item per record."""
        shape = partial(document, name=source.text, tally=tally)
        return csv_items(file, tally, shape, lambda header: _require(header, source.text, file))


def csv_items(file: InputFile, tally: Tally, shape: Shape, check: Callable[[list[str]], None]) -> Iterator[Item]:
    """Items of all records; ``check`` is called with the header."""
    csv.field_size_limit(tally.limit)
    lines = _Lines(file, tally)
    comma = "\t" if suffixes(file.name)[0] == ".tsv" else ","
    records = csv.reader(lines, delimiter=comma, strict=True)
    names: list[str] = []
    while True:
        lines.begin()
        try:
            record = next(records)
        except StopIteration:
            return
        except Damaged as error:
            yield broken_off(lines.first, error)
            return
        except _TooLarge:
            tally.read += 1
            yield tally.too_large(lines.first, lines.size)
            records = csv.reader(lines, delimiter=comma, strict=True)
            continue
        except csv.Error as error:
            if "unexpected end" in str(error):
                lost = file.size * lines.size // max(lines.total, 1)
                yield Lost(lines.first, "a quoted value is not closed", bytes=max(lost, 1))
                return
            tally.read += 1
            yield Bad(lines.first, f"not CSV: {error}")
            continue
        if not names:
            if not all(map(_is_text, record)):
                yield Lost(lines.first, "the header is not UTF-8: convert the file", bytes=max(file.size, 1))
                return
            names = distinct(record)
            check(names)
            continue
        tally.read += 1
        if not record:
            yield Skipped(lines.first)
        elif len(record) != len(names):
            told = f"{len(record)} values, where the header names {len(names)}"
            yield Bad(lines.first, told, excerpt(comma.join(record)))
        else:
            yield shape(lines.first, dict(zip(names, record, strict=True)))


def _require(header: list[str], text: str, file: InputFile) -> None:
    if text not in header:
        named = ", ".join(header)
        raise UserError(f"There is no column {text!r}.", file.url, f"Set `text:` of the source to one of: {named}.")


def _is_text(value: str) -> bool:
    """Whether a value was UTF-8, free of the NUL bytes by which UTF-16 is known."""
    return "\0" not in value and value.encode("utf-8", "replace").decode() == value


class _TooLarge(Exception):  # noqa: N818 - it never leaves this file
    """A record does not fit in memory."""


class _Lines:
    """The lines of a file, counting how much of them the current record uses.

    Attributes:
        first: the number of the line in which the record starts.
        size: bytes of the record so far.
        total: bytes of all lines so far.
    """

    def __init__(self, file: InputFile, tally: Tally) -> None:
        self._lists = split_lines(blocks(file, tally), tally.room())
        self._list: Iterator[bytes] = iter(())
        self._read, self._room = 0, tally.room()
        self.first = self.size = self.total = 0

    def begin(self) -> None:
        """Start a record."""
        self.first, self.size = self._read, 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = next(self._list, None)
        while line is None:
            self._list = iter(next(self._lists))
            line = next(self._list, None)
        size = line.size if isinstance(line, Overlong) else len(line) + 1
        if self._read == 0:
            line = line.removeprefix(BOM)
        self._read += 1
        self.size += size
        self.total += size
        if self.size > self._room:
            raise _TooLarge
        return line.decode("utf-8", "surrogateescape") + "\n"
