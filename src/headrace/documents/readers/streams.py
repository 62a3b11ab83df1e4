"""The bytes of input files: blocks of bounded size whatever the compression, cut into byte ranges, split into lines.

The decompressors are from Python's standard library (zlib, bz2, lzma, zstd). Each returns at most as much as it is
asked for, whatever the input expands to, verifies its container's checksums, and says where a member ends; so one loop
reads files of several members, and can tell truncation, corruption and padding apart.
"""

from __future__ import annotations

import bz2
import lzma
import sys
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, Protocol

from headrace.documents.checked_file import open_file
from headrace.documents.readers.base import COPIES, EXCERPT, Part, Tally
from headrace.documents.sources import InputFile
from headrace.errors import MemoryShareError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# One block in flight per task. 1 MiB is as fast as 16 MiB, and stays in the L2 cache while it is split.
BLOCK = 1 << 20
# Compressed bytes passed to a decompressor at once: how much is lost if a stream is corrupt. 256 KiB is no faster.
INPUT = 1 << 14
# Maximum output per call; 128 KiB is a sixth slower, 1 MiB no faster.
EXPANDED = 1 << 18
# The smallest window that every zstd decoder should support (RFC 8878, 3.1.1.1.2), and the largest possible.
LEAST_WINDOW, MOST_WINDOW = 23, 31


class Damaged(Exception):  # noqa: N818 - a state of the file, not of the program
    """A container is truncated or corrupt; everything intact before that has been returned.

    Args:
        reason: what is wrong.
        lost: bytes of the file that were not read; for a truncated file as many as there are, because it does not say
            how many are missing.

    Attributes:
        unfinished: the beginning of the row in which it broke off.
    """

    def __init__(self, reason: str, lost: int) -> None:
        super().__init__(reason)
        self.lost, self.unfinished = lost, b""


class Overlong(bytes):
    """The beginning of a row that does not fit in memory.

    Attributes:
        size: its length in bytes.
    """

    size: int

    @classmethod
    def of(cls, parts: list[bytes], size: int) -> Overlong:
        """An overlong row that begins with the given parts."""
        made = cls(_beginning(parts))
        made.size = size
        return made


def blocks(file: InputFile, tally: Tally) -> Iterator[bytes]:
    """The decompressed bytes of a file in blocks of at most 1 MiB.

    Raises:
        Damaged: the compressed stream is truncated or corrupt.
        MemoryShareError: its window needs more memory than the task has.
    """
    with open_file(file) as stream:
        plain = file.compression is None
        for block in iter(lambda: stream.read(BLOCK), b"") if plain else decompressed(file, stream, tally.memory):
            tally.advance(len(block))
            yield block


class _Decoder(Protocol):
    """The common interface of the standard library's decompressors, for one member."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """zlib's decompressor, returning its unread input instead of keeping it."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._decoder.decompress(self._decoder.unconsumed_tail + data, max_length)


def _decoder(compression: str, memory: int) -> _Decoder:
    if compression == "gzip":
        return _Gzip()
    if compression == "bzip2":
        return bz2.BZ2Decompressor()
    if compression == "xz":
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=max(memory // 2, 1 << LEAST_WINDOW))
    window = min(max((memory // 2).bit_length() - 1, LEAST_WINDOW), MOST_WINDOW)
    made: _Decoder = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: window})
    return made


def decompressed(file: InputFile, stream: IO[bytes], memory: int) -> Iterator[bytes]:
    """The blocks of all members (streams, frames) of a file in order; NULs between and after members are padding."""
    name = str(file.compression)
    data = stream.read(INPUT)
    read = len(data)
    while data:
        member = read - len(data)
        decoder = _decoder(name, memory)
        begin = member  # start of what is being decoded
        while not decoder.eof:
            try:
                block = decoder.decompress(data, EXPANDED)
            except (zlib.error, lzma.LZMAError, zstd.ZstdError, OSError) as error:
                raise _refused(file, str(error), member, begin, memory) from None
            data = b""
            if block:
                yield block
            elif not decoder.eof:
                begin, data = read, stream.read(INPUT)
                read += len(data)
                if not data:
                    raise Damaged(f"the {name} stream is cut short", file.size)
        data = decoder.unused_data.lstrip(b"\0")
        while not data and (more := stream.read(INPUT)):
            read += len(more)
            data = more.lstrip(b"\0")


def _refused(file: InputFile, error: str, member: int, begin: int, memory: int) -> Damaged | MemoryShareError:
    """What a decompressor's error means: too large a window, or damage somewhere in the file."""
    if "too much memory" in error or "Memory usage limit" in error:
        return MemoryShareError(
            f"The {file.compression} stream has a window of more than {memory // 2:,} bytes, half of a task's memory.",
            file.url,
            "Raise --memory, or compress the file again with a smaller window (`zstd --long=27`, `xz -6`).",
        )
    if any(word in error for word in ("data check", "length check", "checksum")):
        # All of the member has been returned, and something in it is wrong.
        return Damaged(f"the checksum of the {file.compression} stream does not match", file.size - member)
    return Damaged(f"the {file.compression} stream is corrupt ({error})", file.size - begin)


def whole(file: InputFile, tally: Tally, copies: int = COPIES) -> bytes:
    """The content of a file that is one document; an :class:`Overlong` if it does not fit in memory.

    Args:
        file: the file.
        tally: the limits of reading.
        copies: how many times its size is needed to build its documents.

    Raises:
        Damaged: the compressed stream is truncated or corrupt.
    """
    held = Held(tally.room(copies))
    if file.compression is None and file.size > tally.limit:
        return Overlong.of([], file.size)
    for block in blocks(file, tally):
        held.add(block)
    return held.take()


def range_blocks(file: InputFile, part: Part, tally: Tally) -> Iterator[bytes]:
    """The bytes of the lines that start in [part.begin, part.end), for a plain file.

    They extend from after the first newline at or after ``begin - 1`` to the first newline at or after ``end - 1``, so
    that ranges that tile a file also tile its lines.
    """
    begin, end = part.begin, file.size if part.end is None else part.end
    if begin >= end:
        return
    with open_file(file) as stream:
        at = stream.seek(max(begin - 1, 0))
        inside = begin == 0
        while block := stream.read(BLOCK):
            tally.advance(len(block))
            start = 0
            if not inside:
                found = block.find(b"\n")
                if found < 0:
                    at += len(block)
                    if at >= end:  # this line, which fills the range, continues after it
                        return
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


def count_lines(file: InputFile, part: Part, tally: Tally) -> int:
    """The number of lines that start in a part of a plain file."""
    count, last = 0, b"\n"
    for block in range_blocks(file, part, tally):
        count += block.count(b"\n")
        last = block[-1:] or last
    return count + (last != b"\n")


def split_lines(chunks: Iterable[bytes], room: int) -> Iterator[list[bytes]]:
    """Lists of lines without newlines; what follows the last newline is a line unless it is empty.

    A line longer than ``room`` bytes becomes an :class:`Overlong`: no more than that is ever held.

    Raises:
        Damaged: raised by the chunks, with the unfinished line in ``unfinished``.
    """
    held = Held(room)
    try:
        for chunk in chunks:
            # A file of only newlines is counted three times as fast without splitting it.
            lines = chunk.split(b"\n") if chunk.strip(b"\n") else [b""] * (len(chunk) + 1)
            tail = lines.pop()
            if lines:
                held.add(lines[0])
                lines[0] = held.take()
                yield lines
            held.add(tail)
    except Damaged as error:
        error.unfinished = held.take()
        raise
    if held.size:
        yield [held.take()]


def _beginning(parts: list[bytes]) -> bytes:
    """As much of the beginning as the quarantine shows."""
    beginning = b""
    for part in parts:
        beginning += part[: 4 * EXCERPT - len(beginning)]
        if len(beginning) == 4 * EXCERPT:
            break
    return beginning


class Held:
    """The parts of an unfinished row, as far as they fit in memory.

    Attributes:
        size: bytes of the row so far.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._parts: list[bytes] = []
        self._full = False
        self.size = 0

    def add(self, part: bytes) -> None:
        """Add the next part of the row."""
        self.size += len(part)
        if self.size <= self._room:
            self._parts.append(part)
        elif not self._full:  # keep the beginning for the quarantine
            self._parts = [_beginning([*self._parts, part])]
            self._full = True

    def take(self) -> bytes:
        """The finished row; an :class:`Overlong` if it did not fit."""
        parts, size = self._parts, self.size
        self._parts, self.size, self._full = [], 0, False
        if size > self._room:
            return Overlong.of(parts, size)
        return parts[0] if len(parts) == 1 else b"".join(parts)
