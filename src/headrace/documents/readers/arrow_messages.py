"""Read and check the messages of an Arrow stream by their metadata, before Arrow allocates or follows anything.

A file is a stream between two magic marks, with a footer that repeats the positions of its batches. Metadata are
flatbuffers (``Message.fbs`` and ``Schema.fbs`` of the Arrow format); the few fields that matter are read here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

SCHEMA, DICTIONARY, BATCH = 1, 2, 3
MAX_METADATA = 256 << 20  # of one message; 100,000 columns take 8 MB
_CONTINUATION = 0xFFFFFFFF


class MessageError(ValueError):
    """An invalid message: the file is damaged."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a stream.

    Attributes:
        kind: ``SCHEMA``, ``DICTIONARY`` or ``BATCH``.
        begin: its first byte in the file.
        end: the position after its last byte.
        rows: rows in its batch.
        unpacked: bytes that a reader allocates for its compressed buffers; 0 if they are not compressed.
        fault: why it must not be read, though later messages may be.
    """

    kind: int
    begin: int
    end: int
    rows: int = 0
    unpacked: int = 0
    fault: str = ""


def messages(stream: IO[bytes], at: int, end: int) -> Iterator[Message]:
    """The messages between two positions of a file, up to its end or its end-of-stream marker.

    Args:
        stream: the file; its position is moved.
        at: the start of the first message.
        end: the position after the last byte that may belong to one.

    Raises:
        MessageError: a message lies outside, or its metadata are inconsistent; those before it have been yielded.
    """
    while at < end:
        stream.seek(at)
        head = stream.read(8)
        try:
            (length,) = struct.unpack_from("<I", head)
            prefix = 4
            if length == _CONTINUATION:
                (length,) = struct.unpack_from("<I", head, 4)
                prefix = 8
        except struct.error:
            raise MessageError("a message is cut short") from None
        if length == 0:
            return
        body = at + prefix + length
        if length > MAX_METADATA or body > end:
            raise MessageError("a message lies outside the file")
        stream.seek(at + prefix)
        found = _message(stream, stream.read(length), at, body, end)
        yield found
        at = found.end


def _message(stream: IO[bytes], metadata: bytes, begin: int, body: int, end: int) -> Message:
    try:
        table = _Table(metadata, _u32(metadata, 0))
        kind, size = table.byte(1), table.long(3)
        if not 0 <= size <= end - body:
            raise MessageError("a message's body lies outside the file")
        if kind == SCHEMA:
            return Message(kind, begin, body + size)
        if kind not in (DICTIONARY, BATCH):
            raise MessageError(f"a message is of the unknown kind {kind}")
        batch = table.table(2)
        if batch is not None and kind == DICTIONARY:
            batch = batch.table(1)
        if batch is None:
            raise MessageError("a message is empty")
        rows = batch.long(0) if kind == BATCH else 0
        if rows < 0 or (kind == BATCH and any(length != rows for length, _ in batch.pairs(1)[:1])):
            return Message(kind, begin, body + size, fault="a batch and its first column differ in their rows")
        unpacked, fault = _buffers(stream, batch, body, size)
        return Message(kind, begin, body + size, rows, unpacked, fault)
    except struct.error:
        raise MessageError("a message's metadata are damaged") from None


def _buffers(stream: IO[bytes], batch: _Table, body: int, size: int) -> tuple[int, str]:
    """The size of a batch's buffers after decompression, and what is wrong with them."""
    if not all(0 <= nulls <= length for length, nulls in batch.pairs(1)):
        return 0, "a column's length or count of nulls is impossible"
    compressed = batch.table(3) is not None
    unpacked = 0
    for offset, length in batch.pairs(2):
        if offset < 0 or length < 0 or offset + length > size:
            return 0, "a buffer lies outside its message"
        if compressed and length:
            stream.seek(body + offset)
            (whole,) = struct.unpack("<q", stream.read(8)) if length >= 8 else (-2,)
            if whole < -1:  # -1 marks a buffer that is not compressed
                return 0, "a compressed buffer has no size"
            unpacked += max(whole, 0)
    return unpacked, ""


def _u32(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])


class _Table:
    """A flatbuffer table: fields are found through its vtable.

    Raises:
        struct.error: a position lies outside the buffer.
    """

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._vtable = at - struct.unpack_from("<i", data, at)[0]
        if self._vtable < 0:  # Python would count from the end
            raise struct.error
        (self._size,) = struct.unpack_from("<H", data, self._vtable)

    def _field(self, number: int) -> int:
        """The position of a field, 0 if it is absent."""
        place = 4 + 2 * number
        if place + 2 > self._size:
            return 0
        (offset,) = struct.unpack_from("<H", self._data, self._vtable + place)
        return self._at + offset if offset else 0

    def byte(self, number: int) -> int:
        at = self._field(number)
        return int(struct.unpack_from("<B", self._data, at)[0]) if at else 0

    def long(self, number: int) -> int:
        at = self._field(number)
        return int(struct.unpack_from("<q", self._data, at)[0]) if at else 0

    def table(self, number: int) -> _Table | None:
        at = self._field(number)
        return _Table(self._data, at + _u32(self._data, at)) if at else None

    def pairs(self, number: int) -> list[tuple[int, int]]:
        """A vector of structs of two int64."""
        at = self._field(number)
        if not at:
            return []
        at += _u32(self._data, at)
        count = _u32(self._data, at)
        if at + 4 + 16 * count > len(self._data):
            raise struct.error
        numbers = struct.unpack_from(f"<{2 * count}q", self._data, at + 4)
        return list(zip(numbers[::2], numbers[1::2], strict=True))
