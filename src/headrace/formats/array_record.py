"""ArrayRecord, which grain reads at random: a record a row.

A record is ``input_ids`` as ``.npy``, ``loss_mask`` as ``.npy`` and ``segments`` as JSON, one after another, so that it
tells its own type and length. A group of records is one record, as grain wants it.
"""

from __future__ import annotations

import importlib.metadata
import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from headrace.errors import UserError
from headrace.flow.task import TaskContext
from headrace.formats.files import Facts, RowFile
from headrace.formats.format import Part, ReadableFormat, Shape, files_below
from headrace.formats.placed import size_of
from headrace.formats.sample_file import SampleFile, StoredRow
from headrace.formats.samples import npy_header, rows_in, sample_blocks, stored
from headrace.sequence.reader import SequenceReader

# One thread a writer: workers are processes already.
OPTIONS = "group_size:1,uncompressed,max_parallelism:1"


def library() -> Any:
    """The module that writes and reads ArrayRecord.

    Raises:
        UserError: it is not installed.
    """
    try:
        from array_record.python import array_record_module
    except ImportError:
        raise UserError(
            "ArrayRecord needs array_record, which is built for Linux and Apple silicon.",
            "array_record",
            "Run `pip install 'headrace[formats]'`.",
        ) from None
    return array_record_module


class ArrayRecord(ReadableFormat):
    """A folder a stage: ``data-00000.array_record`` and so on."""

    name = "array_record"
    about = "ArrayRecord, as grain reads it"
    keeps = frozenset(["loss", "segments", "provenance"])
    rows_per_file = None
    suffix = ".array_record"

    def check(self, sequence: SequenceReader) -> None:
        """Refuse without array_record."""
        library()

    def rows_in_file(self, sequence: SequenceReader) -> int:
        """As many as make about 64 MB."""
        return rows_in(sequence)

    def write(self, ctx: TaskContext, sequence: SequenceReader, part: Part) -> dict[str, Any]:
        """Write a file."""
        width = sequence.seq_len + 1
        ids, mask = npy_header(width, stored(sequence)), npy_header(width, np.dtype(bool))
        with ctx.file(part.file) as out:
            writer = library().ArrayRecordWriter(str(out.path), OPTIONS)
            try:
                for samples in sample_blocks(ctx, sequence, part):
                    for sample in samples:
                        writer.write(b"".join((ids, sample.tokens, mask, sample.loss, sample.segments)))
            finally:
                writer.close()
        return {}

    def made_with(self) -> dict[str, str]:
        """The library that wrote the files."""
        return {"array_record": importlib.metadata.version("array_record")}

    def find(self, path: Path) -> list[Path]:
        """Files named .array_record."""
        return files_below(path, ".array_record")

    def shape(self, file: Path, seq_len: int | None) -> Shape:
        """Records, and the length of the first."""
        records = Records(file, Facts(0, np.dtype(np.uint32)))
        try:
            return records.shape()
        finally:
            records.close()

    def open_file(self, file: Path, facts: Facts) -> RowFile:
        """Open a file."""
        return Records(file, facts)


class Records(SampleFile):
    """A file of records as :class:`ArrayRecord` writes them."""

    def __init__(self, path: Path, facts: Facts) -> None:
        super().__init__(path, facts)
        if not size_of(path):
            raise self.wrong("it is empty")
        try:
            self._reader = library().ArrayRecordReader(str(path), "readahead_buffer_size:0,max_parallelism:0")
            self._count = int(self._reader.num_records())
            if not self._reader.ok():
                self._reader.close()  # says what is wrong
        except (RuntimeError, ValueError) as error:
            raise self.wrong(f"it is no ArrayRecord, or damaged ({str(error).splitlines()[0][:200]})") from None

    def __len__(self) -> int:
        return self._count

    def stored(self, row: int) -> StoredRow:
        """A row."""
        try:
            [record] = self._reader.read([row])
            data = io.BytesIO(record)
            tokens, loss = (np.lib.format.read_array(data, allow_pickle=False) for _ in range(2))
        except Exception:  # whatever the libraries make of damaged bytes
            raise self.wrong(f"row {row:,} is damaged, or holds something else") from None
        if tokens.ndim != 1 or loss.ndim != 1 or tokens.dtype.kind not in "iu" or loss.dtype.itemsize != 1:
            raise self.wrong(f"row {row:,} has no tokens with a loss mask")
        return StoredRow(tokens, loss, data.read())

    def close(self) -> None:
        """Let go of the file."""
        with suppress(RuntimeError):  # a damaged row was told when it was read
            self._reader.close()
