"""Arrow IPC, as a file or a stream (which is what Hugging Face datasets saves): one document per row.

A file is read as the stream that it contains, so that a truncated one still yields what it has.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import IO

import pyarrow as pa

from headrace.documents.checked_file import open_file
from headrace.documents.readers.arrow_messages import BATCH, DICTIONARY, SCHEMA, Message, MessageError, messages
from headrace.documents.readers.base import Bad, Item, Lost, Part, Reader, Tally, document, too_large
from headrace.documents.readers.tables import FAILURES, Shape, batch_items, need_memory, require, told, validate
from headrace.documents.sources import InputFile
from headrace.errors import UserError
from headrace.recipe.schema import Source

MAGIC = b"ARROW1"
HEAD = 8  # the magic bytes, padded
TAIL = 4 + len(MAGIC)  # the footer's length, and the magic bytes again
SLACK = 64  # after the last message: the end-of-stream marker, padded


class Arrow(Reader):
    """One document per row."""

    def read(self, file: InputFile, part: Part, source: Source, tally: Tally) -> Iterator[Item]:
        """One item per row."""
        shape = partial(document, name=source.text, tally=tally)
        yield from arrow_items(file, tally, shape, lambda schema: require(schema, source.text, file.url), source.text)


def arrow_items(
    file: InputFile, tally: Tally, shape: Shape, check: Callable[[pa.Schema], None], text: str | None = None
) -> Iterator[Item]:
    """Items of all record batches; damaged batches are lost, the others are read."""
    if file.compression is not None:
        raise UserError(
            "Compressed Arrow files are not supported.", file.url, "Decompress it, or convert it to Parquet."
        )
    with open_file(file) as stream:
        found, damage = survey(stream, file.size)
        try:
            if not found or found[0].kind != SCHEMA:
                raise MessageError("it has no schema")
            schema = _open(stream, found[:1]).schema
            schema.names  # noqa: B018 - names that are not UTF-8 are told here
        except FAILURES as error:
            yield Lost(0, f"the Arrow file is corrupt: {told(error)}", bytes=max(file.size, 1))
            return
        check(schema)
        row = 0
        for item in _batches(stream, found, tally):
            if isinstance(item, pa.RecordBatch):
                yield from batch_items(item, row, tally, shape, text)
                row += item.num_rows
            else:
                item.row = row
                tally.read += item.rows if isinstance(item, Bad) else 0
                row += item.rows
                yield item
        if damage is not None:
            damage.row = row
            yield damage


def survey(stream: IO[bytes], size: int) -> tuple[list[Message], Lost | None]:
    """The messages of a file or stream, and what is lost after them."""
    head = stream.read(len(MAGIC))
    begin, end, whole = 0, size, True
    if head == MAGIC:
        stream.seek(max(size - TAIL, 0))
        tail = stream.read(TAIL)
        begin, end = HEAD, size - TAIL - int.from_bytes(tail[:4], "little")
        whole = tail[4:] == MAGIC and end >= begin
        end = end if whole else size
    found: list[Message] = []
    reason = ""
    try:
        for message in messages(stream, begin, end):
            found.append(message)
    except MessageError as error:
        reason = str(error)
    at = found[-1].end if found else begin
    if not whole:  # how much is missing is unknown: assume as much as there is
        return found, Lost(
            0, f"the Arrow file is corrupt: cut short, {reason or 'it has no footer'}", bytes=max(size, 1)
        )
    if reason or end - at > SLACK:
        reason = reason or "what follows its last batch is none"
        return found, Lost(0, f"the Arrow file is corrupt: {reason}", bytes=max(end - at, 1))
    return found, None


def _batches(stream: IO[bytes], found: list[Message], tally: Tally) -> Iterator[pa.RecordBatch | Bad | Lost]:
    """The batches in order, with what is lost of those that cannot be read."""
    before = [message for message in found if message.kind != BATCH and not message.fault]
    reader: pa.RecordBatchStreamReader | None = None
    broken, large = "", False
    for i, message in enumerate(found):
        fault = broken or message.fault
        if not message.fault:
            large = message.unpacked > max(message.rows, 1) * tally.limit
            if not large or message.kind != BATCH:
                need_memory(tally, message.end - message.begin + message.unpacked, "a batch")
        elif message.kind == DICTIONARY:
            broken = message.fault
        if message.kind != BATCH:
            continue
        batch = None
        if not fault and large:
            reader = None
            if message.rows:
                yield Bad(0, f"{too_large(message.unpacked, tally.limit)}, in a batch", rows=message.rows)
            continue
        if not fault:
            try:
                if reader is None:
                    kept = [entry for entry in before if entry.begin < message.begin]
                    reader = _open(stream, [*kept, *found[i:]])
                batch = reader.read_next_batch()
                if batch.num_rows != message.rows:
                    raise MessageError(f"a batch has {batch.num_rows} of {message.rows} rows")
                validate(batch)
            except FAILURES as error:
                fault = told(error)
        if fault:
            reader = None
            size = 0 if message.rows else message.end - message.begin
            yield Lost(0, f"the Arrow file is corrupt: {fault}", rows=message.rows, bytes=size)
        else:
            yield batch


def _open(stream: IO[bytes], wanted: Sequence[Message]) -> pa.RecordBatchStreamReader:
    """A reader of some messages of the file as one stream. Not memory-mapped: bytes could change after they are
    checked."""
    return pa.ipc.open_stream(pa.PythonFile(_Stitched(stream, wanted), mode="r"))


class _Stitched(io.RawIOBase):
    """Some messages of a file, concatenated."""

    def __init__(self, stream: IO[bytes], wanted: Sequence[Message]) -> None:
        self._stream = stream
        self._ranges = [(message.begin, message.end) for message in reversed(wanted)]

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        taken = []
        while size and self._ranges:
            begin, end = self._ranges.pop()
            self._stream.seek(begin)
            data = self._stream.read(end - begin if size < 0 else min(size, end - begin))
            if not data:
                break
            if begin + len(data) < end:
                self._ranges.append((begin + len(data), end))
            taken.append(data)
            size -= len(data) if size > 0 else 0
        return b"".join(taken)
