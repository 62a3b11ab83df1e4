"""A JSON file of many records: an array of objects, concatenated objects, or JSON Lines under another name."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain

import orjson

from headrace.documents.readers.base import Bad, Item, Part, Reader, Tally, document
from headrace.documents.readers.jsonl import BOM, Shape, broken_off, item_of, parse_lines
from headrace.documents.readers.streams import Damaged, blocks
from headrace.documents.sources import InputFile
from headrace.recipe.schema import Source

HEAD = 1 << 16  # bytes used to detect the layout


class Json(Reader):
    """One document per element; the file is never held as a whole."""

    def read(self, file: InputFile, part: Part, source: Source, tally: Tally) -> Iterator[Item]:
        """One item per element or line."""
        return json_items(file, tally, partial(document, name=source.text, tally=tally))


def json_items(file: InputFile, tally: Tally, shape: Shape) -> Iterator[Item]:
    """Items of a JSON file in any of the three layouts."""
    chunks = blocks(file, tally)
    head = b""
    try:
        while len(head) < HEAD and (block := next(chunks, b"")):
            head += block
    except Damaged as error:
        chunks = _raising(error)
    chunks = chain([head], chunks)
    start = head.removeprefix(BOM).lstrip()
    if start.startswith(b"[") and not _lines_of_arrays(start):
        return _elements(file, chunks, True, tally, shape)
    if start.startswith(b"{") and _is_spread(start):
        return _elements(file, chunks, False, tally, shape)
    return parse_lines(chunks, 0, tally, shape)


def _raising(error: Damaged) -> Iterator[bytes]:
    yield b""
    raise error


def _lines_of_arrays(start: bytes) -> bool:
    """Whether each line is an array: JSON Lines without objects, all of them bad."""
    first, newline, rest = start.partition(b"\n")
    return bool(newline) and rest.lstrip().startswith(b"[") and _parses(first)


def _is_spread(start: bytes) -> bool:
    """Whether an object spans several lines: its first line is incomplete and the next does not start an object."""
    first, newline, rest = start.partition(b"\n")
    return bool(newline) and not rest.lstrip().startswith(b"{") and not _parses(first)


def _parses(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


def _elements(file: InputFile, chunks: Iterator[bytes], array: bool, tally: Tally, shape: Shape) -> Iterator[Item]:
    """Parse the elements of an array, or concatenated objects; rows are numbered by element."""
    from headrace.documents.readers.json_scan import pieces

    row = 0
    try:
        for data, last in pieces(_inside(chunks, array), array, tally.room(), file.size):
            if last and row == 0 and not data.strip():
                return  # an empty array
            tally.read += 1
            yield item_of(row, data, tally, shape) if data.strip() else Bad(row, "an empty element")
            row += 1
    except Damaged as error:
        yield broken_off(row, error)


def _inside(chunks: Iterator[bytes], array: bool) -> Iterator[bytes]:
    """The text without what precedes its first element: BOM, whitespace and, for an array, the bracket."""
    for chunk in chunks:
        if begin := chunk.removeprefix(BOM).lstrip():
            yield begin[1:] if array else begin
            break
    yield from chunks
