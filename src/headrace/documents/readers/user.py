"""A user-defined reader: a generator that takes an open file and yields texts or records."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import IO, Any

from headrace.documents.checked_file import open_file
from headrace.documents.readers.base import Bad, Item, Lost, Part, Reader, Record, Tally, document, excerpt
from headrace.documents.readers.json_values import finite
from headrace.documents.readers.jsonl import broken_off
from headrace.documents.readers.streams import Damaged, blocks
from headrace.documents.sources import InputFile
from headrace.functions.calling import Function, Note
from headrace.functions.document import place
from headrace.functions.failures import Failed, failure
from headrace.recipe.schema import Source

BUFFER = 1 << 18


class UserReader(Reader):
    """Each text, record or exception that the function yields is a row; raising ends the file.

    Args:
        function: called with a readable, decompressed binary file whose ``name`` is its path.
        name: the source's name, for messages.
        note: called with each row before it is read.
    """

    def __init__(self, function: Function, name: str, note: Note | None = None) -> None:
        self._function, self._name, self._note = function, name, note or (lambda text: None)

    def read(self, file: InputFile, part: Part, source: Source, tally: Tally) -> Iterator[Item]:
        """One item for each value yielded."""
        row, label = 0, self._function.label
        self._note(f"document {place(self._name, file.name, row)}, in {label}")
        with _opened(file, tally) as stream:
            try:
                for made in self._function.each(stream):
                    tally.read += 1
                    yield self._item(file, row, made, source, tally)
                    row += 1
                    self._note(f"document {place(self._name, file.name, row)}, in {label}")
            except MemoryError:
                raise self._function.out_of_memory(place(self._name, file.name, row)) from None
            except Failed as failed:
                if isinstance(failed.__cause__, Damaged):
                    yield broken_off(row, failed.__cause__)
                    return
                words = self._function.failed(failed, place(self._name, file.name, row))
                left = max(file.size - stream.tell(), 0) if file.compression is None else file.size
                yield Lost(row, f"{words}; the rest of the file is not read", rows=0 if left else 1, bytes=left)

    def _item(self, file: InputFile, row: int, made: Any, source: Source, tally: Tally) -> Item:
        if isinstance(made, str):
            return Record(row, made, {})
        if isinstance(made, dict):
            try:
                return document(row, finite(made), source.text, tally)
            except ValueError as error:
                failed = self._function.wrong(f"yields a dict that cannot be kept: {error}")
        elif isinstance(made, Exception):
            failed = failure(self._function.label, made)
        else:
            failed = self._function.wrong(f"yields {type(made).__name__}, not a text or a dict")
        return Bad(row, self._function.failed(failed, place(self._name, file.name, row)), excerpt(made, repr))


def _opened(file: InputFile, tally: Tally) -> IO[bytes]:
    """A buffered binary file, seekable if it is not compressed."""
    raw = _Raw(file) if file.compression is None else _Blocks(file, tally)
    return io.BufferedReader(raw, BUFFER)


class _Raw(io.RawIOBase):
    """An input file, checked as it is read."""

    def __init__(self, file: InputFile) -> None:
        self.name = file.url
        self._stream = open_file(file)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Blocks(io.RawIOBase):
    """Decompressed blocks as a file."""

    def __init__(self, file: InputFile, tally: Tally) -> None:
        self.name = file.url
        self._blocks, self._left = blocks(file, tally), memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            self._left = memoryview(next(self._blocks, b""))
        size = min(len(buffer), len(self._left))
        buffer[:size], self._left = self._left[:size], self._left[size:]
        return size

    def close(self) -> None:
        self._blocks.close()  # type: ignore[attr-defined]
        super().close()
