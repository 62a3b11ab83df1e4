"""WebDataset: tar files whose members of one name make a sample.

Row 7 is ``000000007.input_ids.npy``, ``000000007.loss_mask.npy`` and ``000000007.segments.json``. Members are POSIX
ustar, owned by nobody and of no time. (webdataset 1.0.2, ``writer.py``; POSIX.1-2017, pax, "ustar Interchange Format".)
"""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from headrace.flow.task import TaskContext
from headrace.formats.files import Facts, RowFile
from headrace.formats.format import Part, ReadableFormat, Shape, files_below
from headrace.formats.placed import open_for, size_of
from headrace.formats.sample_file import MOST_ROW, SampleFile, StoredRow
from headrace.formats.samples import npy_header, rows_in, sample_blocks, stored
from headrace.sequence.reader import SequenceReader

BLOCK = 512
RECORD = 20 * BLOCK  # a tar file's size is a multiple of this

# The fields of a header between its name, its size and its checksum, and after it.
MODE = b"0000444\0" + 2 * b"0000000\0"
TIME = b"%011o\0" % 0
REST = (b" 0" + bytes(100) + b"ustar\x0000").ljust(BLOCK - 155, b"\0")
DIGITS = 9  # of a row's number


class WebDataset(ReadableFormat):
    """A folder a stage: ``shard-000000.tar`` and so on."""

    name = "webdataset"
    about = "WebDataset: tar files of .npy and .json"
    keeps = frozenset(["loss", "segments", "provenance"])
    rows_per_file = None
    suffix = ".tar"

    def rows_in_file(self, sequence: SequenceReader) -> int:
        """As many as make about 64 MB."""
        return rows_in(sequence)

    def file(self, stage: str, number: int) -> str:
        """Named so that ``shard-{000000..000009}.tar`` means all."""
        return f"{stage}/shard-{number:06d}.tar"

    def write(self, ctx: TaskContext, sequence: SequenceReader, part: Part) -> dict[str, Any]:
        """Write a shard."""
        width = sequence.seq_len + 1
        ids, mask = npy_header(width, stored(sequence)), npy_header(width, np.dtype(bool))
        with ctx.file(part.file) as out, open(out.path, "wb") as file:
            for samples in sample_blocks(ctx, sequence, part):
                pieces: list[bytes | memoryview] = []
                for sample in samples:
                    digits = b"%0*d" % (DIGITS, sample.row)
                    pieces += _member(b".input_ids.npy", ids, len(sample.tokens)).around(digits, sample.tokens)
                    pieces += _member(b".loss_mask.npy", mask, len(sample.loss)).around(digits, sample.loss)
                    pieces += _member(b".segments.json", b"", len(sample.segments)).around(digits, sample.segments)
                file.write(b"".join(pieces))
            file.write(bytes(2 * BLOCK))
            file.write(bytes(-file.tell() % RECORD))
        return {}

    def find(self, path: Path) -> list[Path]:
        """Files named .tar."""
        return files_below(path, ".tar")

    def shape(self, file: Path, seq_len: int | None) -> Shape:
        """Samples, and the length of the first."""
        shard = Shard(file, Facts(0, np.dtype(np.uint32)))
        try:
            return shard.shape()
        finally:
            shard.close()

    def open_file(self, file: Path, facts: Facts) -> RowFile:
        """Open a shard."""
        return Shard(file, facts)


FIELDS = ("input_ids.npy", "loss_mask.npy", "segments.json")


class Shard(SampleFile):
    """A tar file of samples that have ``input_ids.npy``, and perhaps the others of :data:`FIELDS`."""

    def __init__(self, path: Path, facts: Facts) -> None:
        super().__init__(path, facts)
        self._samples: list[dict[str, tuple[int, int]]] = []
        try:
            self._file = open_for(self, path)
        except OSError as error:
            raise self.wrong(str(error.strerror)) from None
        try:
            self._look()
        except BaseException:
            self.close()
            raise

    def _look(self) -> None:
        """Where each field of each sample begins, and its bytes. Members of a sample follow one another."""
        size, at, before = size_of(self.path), 0, None
        while at < size:
            header = os.pread(self._file.fileno(), BLOCK, at)
            if header == bytes(BLOCK):  # the end
                break
            length = self._length(header, at, size)
            folder, _, name = os.fsdecode(header[:100].split(b"\0")[0]).rpartition("/")
            name, _, field = name.partition(".")
            if header[156:157] in (b"0", b"\0") and field in FIELDS:
                if (folder, name) != before:
                    self._samples.append({})
                before = folder, name
                self._samples[-1][field] = at + BLOCK, length
            at += BLOCK + length + -length % BLOCK
        if not all(FIELDS[0] in sample for sample in self._samples):
            raise self.wrong(f"a sample has no {FIELDS[0]}")

    def _length(self, header: bytes, at: int, size: int) -> int:
        """The bytes of a member."""
        told = [field.strip(b" \0") for field in (header[124:136], header[148:156])]
        if len(header) == BLOCK and all(re.fullmatch(rb"[0-7]+", one) for one in told):
            length, checksum = (int(one, 8) for one in told)
            if checksum == sum(header) - sum(header[148:156]) + 8 * ord(" ") and at + BLOCK + length <= size:
                return length
        raise self.wrong(f"it is no tar file, or damaged at byte {at:,}")

    def __len__(self) -> int:
        return len(self._samples)

    def stored(self, row: int) -> StoredRow:
        """A row."""
        ids, mask, segments = (self._field(row, name) for name in FIELDS)
        tokens = self._array(row, ids or b"")
        if tokens.dtype.kind not in "iu":
            raise self.wrong(f"the tokens of row {row:,} are no whole numbers")
        loss = None if mask is None else self._array(row, mask)
        if loss is not None and loss.dtype.itemsize != 1:
            raise self.wrong(f"the loss mask of row {row:,} has no bytes")
        return StoredRow(tokens, loss, b"null" if segments is None else segments)

    def _field(self, row: int, name: str) -> bytes | None:
        if name not in self._samples[row]:
            return None
        at, size = self._samples[row][name]
        if size > MOST_ROW:
            raise self.wrong(f"row {row:,} has more than {MOST_ROW >> 20:,} MB")
        self._file.seek(at)
        data = self._file.read(size)
        if len(data) != size:
            raise self.wrong(f"it ends within row {row:,}")
        return data

    def _array(self, row: int, data: bytes) -> np.ndarray:
        try:
            found: np.ndarray = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        except Exception:  # whatever NumPy makes of damaged bytes
            found = np.empty((0, 0))
        if found.ndim != 1 or not found.size:
            raise self.wrong(f"row {row:,} is no array of tokens")
        return found

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


@dataclass(frozen=True)
class Member:
    """What members of one suffix and size have in common, around the nine digits that their names begin with.

    Attributes:
        before: the header from the suffix to the checksum.
        checksum: that of the header, without the digits.
        after: the header from the checksum, and the beginning of the contents.
        fill: what fills the last block.
    """

    before: bytes
    checksum: int
    after: bytes
    fill: bytes

    def around(self, digits: bytes, body: bytes | memoryview) -> tuple[bytes | memoryview, ...]:
        """A member, in pieces."""
        return digits, self.before, b"%06o\0" % (self.checksum + sum(digits)), self.after, body, self.fill


@lru_cache(maxsize=4096)
def _member(suffix: bytes, head: bytes, body: int) -> Member:
    size = len(head) + body
    before = suffix.ljust(100 - DIGITS, b"\0") + MODE + b"%011o\0" % size + TIME
    # The checksum counts its own field as eight spaces, the last of which is the first of REST.
    return Member(before, sum(before) + sum(b" " * 7) + sum(REST), REST + head, bytes(-size % BLOCK))
