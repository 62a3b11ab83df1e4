"""A JSON text of many records: an array of objects, objects one after another, or JSON lines under another name."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain

import numpy as np
import orjson

from headrace.documents.readers.base import Bad, Item, Part, Reader, Tally, document
from headrace.documents.readers.jsonl import BOM, Shape, broken_off, parse_lines, unparsed
from headrace.documents.readers.streams import MAX_LINE, Damaged, blocks
from headrace.documents.sources import InputFile
from headrace.recipe.schema import Source

HEAD = 1 << 16  # bytes by which the layout is told


class Json(Reader):
    """One document an element; the file is never held whole."""

    def read(self, file: InputFile, part: Part, source: Source, tally: Tally) -> Iterator[Item]:
        """One item an element or line."""
        return json_items(file, tally, partial(document, name=source.text, tally=tally))


def json_items(file: InputFile, tally: Tally, shape: Shape) -> Iterator[Item]:
    """Items of a JSON text, whichever of the three layouts it has."""
    chunks = blocks(file)
    head = b""
    try:
        while len(head) < HEAD and (block := next(chunks, b"")):
            head += block
    except Damaged as error:
        chunks = _raising(error)
    chunks = chain([head], chunks)
    start = head.removeprefix(BOM).lstrip()
    if start.startswith(b"[") and not _lines_of_arrays(start):
        return _elements(chunks, True, tally, shape)
    if start.startswith(b"{") and _is_spread(start):
        return _elements(chunks, False, tally, shape)
    return parse_lines(chunks, 0, tally, shape)


def _raising(error: Damaged) -> Iterator[bytes]:
    yield b""
    raise error


def _lines_of_arrays(start: bytes) -> bool:
    """Whether each line is an array: JSON lines that hold no objects, all of them bad."""
    first, newline, rest = start.partition(b"\n")
    return bool(newline) and rest.lstrip().startswith(b"[") and _parses(first)


def _is_spread(start: bytes) -> bool:
    """Whether an object is written over several lines: its first line is not whole and the next begins no object."""
    first, newline, rest = start.partition(b"\n")
    return bool(newline) and not rest.lstrip().startswith(b"{") and not _parses(first)


def _parses(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


def _elements(chunks: Iterator[bytes], array: bool, tally: Tally, shape: Shape) -> Iterator[Item]:
    """Parse the elements of an array, or objects one after another; rows are numbered by element."""
    row = 0
    try:
        for data, last in _pieces(_inside(chunks, array), array):
            if last and row == 0 and not data.strip():
                return  # an empty array
            tally.read += 1
            try:
                value = orjson.loads(data)
            except orjson.JSONDecodeError as error:
                item = unparsed(row, data, error)
                yield item if isinstance(item, Bad) else Bad(row, "an empty element")
            else:
                yield shape(row, value)
            row += 1
    except Damaged as error:
        yield broken_off(row, error)


def _inside(chunks: Iterator[bytes], array: bool) -> Iterator[bytes]:
    """The text without what precedes its first element: mark, white space and, of an array, the bracket."""
    for chunk in chunks:
        if begin := chunk.removeprefix(BOM).lstrip():
            yield begin[1:] if array else begin
            break
    yield from chunks


def _pieces(chunks: Iterator[bytes], array: bool) -> Iterator[tuple[bytes, bool]]:
    """Yield (bytes of an element, whether the array ends behind it).

    Raises:
        Damaged: the text ends within an element or goes on behind the array.
    """
    from headrace.documents.readers.json_scan import DEPTH, separators

    state = np.zeros(3, dtype=np.int64)
    state[DEPTH] = array
    out = np.empty(0, dtype=np.int64)
    carry: list[bytes] = []
    closed = False
    try:
        for chunk in chunks:
            if len(out) < len(chunk):
                out = np.empty(len(chunk), dtype=np.int64)
            found = 0 if closed else separators(np.frombuffer(chunk, dtype=np.uint8), state, array, out)
            closed = array and state[DEPTH] == 0
            start = 0
            for i, position in enumerate(out[:found].tolist()):
                piece = chunk[start : position + (not array)]
                yield (b"".join([*carry, piece]) if carry else piece), closed and i == found - 1
                carry, start = [], position + 1
            if rest := chunk[start:]:
                carry.append(rest)
            if closed and rest.strip():
                raise Damaged("text follows the end of the array", 0)
            if sum(map(len, carry)) > MAX_LINE:
                raise Damaged(f"an element is longer than {MAX_LINE} bytes", 0)
        if array and not closed:
            raise Damaged("the array is not closed", 0)
        if not array and b"".join(carry).strip():
            raise Damaged("the last object is not closed", 0)
    except Damaged as error:
        error.unfinished = carry[0] if carry else b""
        raise
