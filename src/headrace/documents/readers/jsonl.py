"""JSON Lines: one object per line, plain (also in byte ranges) or compressed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import orjson

from headrace.documents.readers.base import (
    PART_BYTES,
    Bad,
    Item,
    Lost,
    Part,
    Reader,
    Skipped,
    Tally,
    document,
    excerpt,
)
from headrace.documents.readers.json_values import parse, weight, wrong
from headrace.documents.readers.streams import Damaged, Overlong, blocks, range_blocks, split_lines
from headrace.documents.sources import InputFile
from headrace.recipe.schema import Source

Shape = Callable[[int, Any], Item]
"""Creates an item from a row's number and its parsed value."""

LIGHT = 1 << 20  # bytes of a row that always fit in memory, whatever it contains: at most 36 MB of empty dicts
REPEATS = 1000
BOM = b"\xef\xbb\xbf"


class JsonLines(Reader):
    """One document per line. A plain file is split into byte ranges."""

    def split(self, file: InputFile) -> list[Part]:
        """Byte ranges; their first row numbers are known only once the lines before them are counted."""
        return byte_ranges(file)

    def read(self, file: InputFile, part: Part, source: Source, tally: Tally) -> Iterator[Item]:
        """One item per line."""
        return line_items(file, part, tally, partial(document, name=source.text, tally=tally))


def byte_ranges(file: InputFile) -> list[Part]:
    """Even ranges of at most ``PART_BYTES`` that tile a plain file, up to its limit."""
    if file.compression is not None or file.remote:
        return [Part()]
    end = file.size if file.take is None else min(file.take, file.size)
    count = max(1, -(-end // PART_BYTES))
    edges = [end * i // count for i in range(count + 1)]
    return [Part(begin, stop, None if begin else 0) for begin, stop in pairwise(edges)]


def line_items(file: InputFile, part: Part, tally: Tally, shape: Shape) -> Iterator[Item]:
    """Items of the lines in a part of a file."""
    plain = file.compression is None and not file.remote
    chunks = range_blocks(file, part, tally) if plain else blocks(file, tally)
    return parse_lines(chunks, part.row or 0, tally, shape)


def parse_lines(chunks: Iterable[bytes], row: int, tally: Tally, shape: Shape) -> Iterator[Item]:
    """Parse each line of a byte stream; ``row`` is the number of the first.

    A run of blank lines is one item, and so is whatever follows ``REPEATS`` identical bad lines: a file of nothing else
    costs little.
    """
    run: Skipped | Bad | None = None
    last, repeats = b"", 0
    try:
        for lines in split_lines(chunks, tally.room()):
            if row == 0 and lines[0].startswith(BOM):
                lines[0] = lines[0].removeprefix(BOM)
            tally.read += len(lines)
            if isinstance(run, Skipped) and not any(lines):
                run.rows += len(lines)
                row += len(lines)
                continue
            for line in lines:
                if run is not None and line == last and (isinstance(run, Skipped) or repeats == REPEATS):
                    run.rows += 1
                else:
                    if run is not None:
                        yield run
                    repeats = repeats + 1 if line == last else 0
                    item = Skipped(row) if not line or line.isspace() else item_of(row, line, tally, shape)
                    run, last = (item, line) if isinstance(item, Bad | Skipped) else (None, b"")
                    if run is None:
                        yield item
                row += 1
    except Damaged as error:
        if run is not None:
            yield run
        yield broken_off(row, error)
    else:
        if run is not None:
            yield run


def broken_off(row: int, error: Damaged) -> Lost:
    """The loss when a stream turns out to be damaged in row ``row``."""
    return Lost(row, str(error), bytes=error.lost, excerpt=excerpt(error.unfinished))


def item_of(row: int, data: bytes, tally: Tally, shape: Shape) -> Item:
    """The item for a line or element.

    Raises:
        MemoryShareError: it is within the document limit, but does not fit in memory.
    """
    if isinstance(data, Overlong):
        return tally.too_large(row, data.size, data)
    if len(data) > LIGHT and (size := weight(data)) > tally.room():
        return tally.too_large(row, size, data)
    try:
        value = parse(data)
    except orjson.JSONDecodeError as error:
        return Bad(row, wrong(data, error), excerpt(data))
    return shape(row, value)
