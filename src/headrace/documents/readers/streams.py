"""Bytes of input files: decompressed block by block, cut into byte ranges, split into lines.

Compressed streams go through Arrow's decompressors, which bound their output whatever the input expands to and say
when a stream ends too early; the `zstandard` stream reader takes a truncated file for a complete one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO

from headrace.documents.checked_file import open_file
from headrace.documents.readers.base import EXCERPT, Part
from headrace.documents.sources import InputFile

# One block in flight a task. 1 MiB reads as fast as 16 MiB, and stays in the second-level cache while it is split.
BLOCK = 1 << 20
# When a compressed stream breaks, the block being read is lost, so these are smaller.
COMPRESSED_BLOCK = 1 << 18
# A longer line is quarantined unread: it would only end in a document that Parquet, whose values are counted in int32,
# cannot hold.
MAX_LINE = 1 << 30
ZSTD_WINDOW = 1 << 27  # the largest window that Arrow accepts; `zstd --long=31` writes larger ones


class Damaged(Exception):  # noqa: N818 - a state of the file, not of the program
    """A compressed stream is cut short or corrupt; all whole blocks before that have been given out.

    Args:
        reason: what is wrong.
        lost: bytes of the file that were not read; of a stream that is cut short as many as there are, because it does
            not say how many are missing.

    Attributes:
        unfinished: the beginning of the row that it broke off in.
    """

    def __init__(self, reason: str, lost: int) -> None:
        super().__init__(reason)
        self.lost, self.unfinished = lost, b""


class Overlong(bytes):
    """The beginning of a line that is longer than ``MAX_LINE``."""


def blocks(file: InputFile) -> Iterator[bytes]:
    """The decompressed bytes of a file in blocks.

    Raises:
        Damaged: the compressed stream is cut short or corrupt.
    """
    with open_file(file) as stream:
        if file.compression is None:
            while block := stream.read(BLOCK):
                yield block
        elif file.compression == "zstd" and _window(stream) > ZSTD_WINDOW:
            yield from _long_zstd(file, stream)
        else:
            yield from _decompressed(file, stream, file.compression)


def _decompressed(file: InputFile, stream: IO[bytes], compression: str) -> Iterator[bytes]:
    import pyarrow as pa

    source = pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), compression)
    while True:
        try:
            block = source.read(COMPRESSED_BLOCK)
        except OSError as error:
            if error.errno is not None:  # the disk's error, not the stream's
                raise
            if "runcated" in str(error):
                raise Damaged(f"the {compression} stream is cut short", file.size) from None
            reason = f"the {compression} stream is corrupt ({str(error).splitlines()[0]})"
            raise Damaged(reason, file.size - stream.tell()) from None
        if not block:
            return
        yield block


def _window(stream: IO[bytes]) -> int:
    import zstandard

    head = stream.read(18)  # the longest frame header
    stream.seek(0)
    try:
        return int(zstandard.get_frame_parameters(head).window_size)
    except zstandard.ZstdError:
        return 0


def _long_zstd(file: InputFile, stream: IO[bytes]) -> Iterator[bytes]:
    """Frames with windows that Arrow refuses; the window alone takes more memory than any block."""
    import zstandard

    context = zstandard.ZstdDecompressor(max_window_size=1 << 31)
    frame = None
    try:
        while data := stream.read(1 << 14):
            while data:
                frame = frame or context.decompressobj()
                if block := frame.decompress(data):
                    yield block
                data = frame.unused_data if frame.eof else b""
                frame = None if frame.eof else frame
    except zstandard.ZstdError as error:
        raise Damaged(f"the zstd stream is corrupt ({error})", file.size - stream.tell()) from None
    if frame is not None:
        raise Damaged("the zstd stream is cut short", file.size)


def range_blocks(file: InputFile, part: Part) -> Iterator[bytes]:
    """The bytes of the lines that start in [part.begin, part.end), for a plain file.

    They reach from behind the first newline at or after ``begin - 1`` to the first newline at or after ``end - 1``,
    so that ranges that tile a file tile its lines.
    """
    begin, end = part.begin, file.size if part.end is None else part.end
    if begin >= end:
        return
    with open_file(file) as stream:
        at = stream.seek(max(begin - 1, 0))
        inside = begin == 0
        while block := stream.read(BLOCK):
            start = 0
            if not inside:
                found = block.find(b"\n")
                if found < 0:
                    at += len(block)
                    continue
                start, inside = found + 1, True
                if at + start >= end:
                    return
            stop = block.find(b"\n", max(end - 1 - at, 0)) if at + len(block) >= end else -1
            if stop >= 0:
                yield block[start : stop + 1]
                return
            yield block[start:] if start else block
            at += len(block)


def count_lines(file: InputFile, part: Part) -> int:
    """The number of lines that start in a part of a plain file."""
    count, last = 0, b"\n"
    for block in range_blocks(file, part):
        count += block.count(b"\n")
        last = block[-1:] or last
    return count + (last != b"\n")


def split_lines(chunks: Iterable[bytes], limit: int = MAX_LINE) -> Iterator[list[bytes]]:
    """Lines without their newlines, in lists; what follows the last newline is a line unless it is empty.

    A line longer than ``limit`` bytes is given as an :class:`Overlong` of its beginning.

    Raises:
        Damaged: from the chunks, with the unfinished line in ``unfinished``.
    """
    carry: list[bytes] = []
    size = 0
    try:
        for chunk in chunks:
            first, *rest = chunk.split(b"\n")
            size += len(first)
            if size <= limit or not carry:
                carry.append(first)
            if rest:
                line, tail = _line(carry, size, limit), rest.pop()
                carry, size = [tail], len(tail)
                yield [line, *rest]
    except Damaged as error:
        error.unfinished = carry[0] if carry else b""
        raise
    if size:
        yield [_line(carry, size, limit)]


def _line(carry: list[bytes], size: int, limit: int) -> bytes:
    if size > limit:
        return Overlong(carry[0][: 4 * EXCERPT])
    return carry[0] if len(carry) == 1 else b"".join(carry)
