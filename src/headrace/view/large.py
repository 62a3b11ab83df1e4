"""Texts that are too large to be read as others are: those alone in their row group.

Arrow holds such a text as it is compressed, as it is in its page, and as it grows into an array: 100 MB take 400. Here
its page is decompressed a block at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.documents.readers.streams import EXPANDED, INPUT, zstd

LARGE = 4 << 20  # bytes of a text that is read so
ROOM = 64 << 20  # bytes of whole texts in memory at once, or one that is larger


class _Room:
    """Lets through as much at once as there is room for, or one thing that is larger."""

    def __init__(self, size: int) -> None:
        self._size, self._taken, self._changed = size, 0, threading.Condition()

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Wait for room."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + size <= self._size)
            self._taken += size
        try:
            yield
        finally:
            with self._changed:
                self._taken -= size
                self._changed.notify_all()


_ROOM = _Room(ROOM)


@contextmanager
def texts_of(file: pq.ParquetFile, path: Path, group: int) -> Iterator[pa.ChunkedArray]:
    """The texts of a row group, large_string[n]: when there is room for them, and until the ``with`` block ends.

    Args:
        file: the shard, opened.
        path: its file.
        group: the row group's number.
    """
    column = file.schema_arrow.get_field_index("text")
    size = file.metadata.row_group(group).column(column).total_uncompressed_size
    with _ROOM.taken(size):
        found = blocks(file, path, group)
        if found is None:
            yield file.read_row_group(group, ["text"], use_threads=False).column("text")
            return
        data, at = np.empty(size, dtype=np.uint8), 0
        for block in found:
            data[at : at + len(block)] = block
            at += len(block)
        offsets = pa.py_buffer(np.array([0, at], dtype=np.int64))
        yield pa.chunked_array([pa.LargeStringArray.from_buffers(1, offsets, pa.py_buffer(data[:at]))])


def blocks(file: pq.ParquetFile, path: Path, group: int) -> Iterator[np.ndarray] | None:
    """The text of a row group that has one large text, uint8[n] at a time; None of others.

    Args:
        file, path, group: as in :func:`texts_of`.
    """
    about = file.metadata.row_group(group)
    chunk = about.column(file.schema_arrow.get_field_index("text"))
    plain = chunk.compression == "ZSTD" and not chunk.has_dictionary_page
    if about.num_rows != 1 or chunk.total_uncompressed_size < LARGE or not plain:
        return None
    return _value(path, chunk.data_page_offset, chunk.total_compressed_size)


def _value(path: Path, start: int, size: int) -> Iterator[np.ndarray]:
    """The only value of a column chunk that is not nullable: a page's header, its length in 4 bytes, and its bytes."""
    with open(path, "rb") as file:
        file.seek(start)
        head = file.read(min(size, INPUT))
        first = _struct(head, 0)
        file.seek(start + first)
        left, decompressor = size - first, zstd.ZstdDecompressor()
        skipped = 4
        while not decompressor.eof:
            data = b""
            if decompressor.needs_input:
                data = file.read(min(left, INPUT))
                left -= len(data)
                if not data:
                    raise OSError(f"{path} ends within a page.")
            block = np.frombuffer(decompressor.decompress(data, EXPANDED), dtype=np.uint8)
            some = block[skipped:]
            skipped -= min(skipped, len(block))
            if len(some):
                yield some


def _struct(data: bytes, at: int) -> int:
    """Where a structure of Thrift's compact protocol ends (https://github.com/apache/thrift/blob/master/doc/specs/
    thrift-compact-protocol.md): page headers have integers, flags and structures."""
    while data[at]:
        kind, at = data[at] & 15, at + 1 if data[at] >> 4 else _integer(data, at + 1)
        if kind == 12:
            at = _struct(data, at)
        elif kind in (4, 5, 6):
            at = _integer(data, at)
        elif kind == 8:
            length, at = _number(data, at)
            at += length
        elif kind not in (1, 2):
            raise ValueError(f"a page header has a field of type {kind}")
    return at + 1


def _integer(data: bytes, at: int) -> int:
    return _number(data, at)[1]


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, and where it ends."""
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at
