"""JSON lines: one object a line, plain (also in byte ranges), .gz or .zst."""

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
    not_utf8,
)
from headrace.documents.readers.streams import MAX_LINE, Damaged, Overlong, blocks, range_blocks, split_lines
from headrace.documents.sources import InputFile
from headrace.recipe.schema import Source

Shape = Callable[[int, Any], Item]
"""Makes an item of a row's number and its parsed value."""

BOM = b"\xef\xbb\xbf"


class JsonLines(Reader):
    """One document a line. A plain file is split into byte ranges."""

    def split(self, file: InputFile) -> list[Part]:
        """Byte ranges; their first rows are known only when the lines before them are counted."""
        return byte_ranges(file)

    def read(self, file: InputFile, part: Part, source: Source, tally: Tally) -> Iterator[Item]:
        """One item a line."""
        return line_items(file, part, tally, partial(document, name=source.text, tally=tally))


def byte_ranges(file: InputFile) -> list[Part]:
    """Even ranges of at most ``PART_BYTES`` that tile a plain file; a limit cuts the file short."""
    if file.compression is not None or file.remote:
        return [Part()]
    end = file.size if file.take is None else min(file.take, file.size)
    count = max(1, -(-end // PART_BYTES))
    edges = [end * i // count for i in range(count + 1)]
    return [Part(begin, stop, None if begin else 0) for begin, stop in pairwise(edges)]


def line_items(file: InputFile, part: Part, tally: Tally, shape: Shape) -> Iterator[Item]:
    """Items of the lines of a part of a file."""
    plain = file.compression is None and not file.remote
    return parse_lines(range_blocks(file, part) if plain else blocks(file), part.row or 0, tally, shape)


def parse_lines(chunks: Iterable[bytes], row: int, tally: Tally, shape: Shape) -> Iterator[Item]:
    """Parse each line of a byte stream; ``row`` is the number of the first."""
    loads = orjson.loads
    try:
        for lines in split_lines(chunks):
            if row == 0 and lines[0].startswith(BOM):
                lines[0] = lines[0][len(BOM) :]
            tally.read += len(lines)
            for line in lines:
                try:
                    value = loads(line)
                except orjson.JSONDecodeError as error:
                    yield unparsed(row, line, error)
                else:
                    yield shape(row, value) if line.__class__ is bytes else _overlong(row, line)
                row += 1
    except Damaged as error:
        yield broken_off(row, error)


def broken_off(row: int, error: Damaged) -> Lost:
    """The loss where a stream ends in damage, ``row`` being the row in which it does."""
    return Lost(row, str(error), bytes=error.lost, excerpt=excerpt(error.unfinished))


def unparsed(row: int, data: bytes, error: orjson.JSONDecodeError) -> Item:
    """What a line is that is not JSON: blank, too long, not UTF-8, or wrong in its syntax."""
    if isinstance(data, Overlong):
        return _overlong(row, data)
    if not data.strip():
        return Skipped(row)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as wrong:
        return Bad(row, not_utf8(wrong), excerpt(data))
    surrogate = " (a lone surrogate)" if "surrogate" in error.msg else ""
    return Bad(row, f"not JSON: {error.msg.partition(': line ')[0]} at character {error.pos}{surrogate}", excerpt(data))


def _overlong(row: int, data: bytes) -> Bad:
    return Bad(row, f"the line is longer than {MAX_LINE} bytes", excerpt(data))
