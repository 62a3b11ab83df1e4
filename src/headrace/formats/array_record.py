"""ArrayRecord, which grain reads at random: a record a row.

A record is ``input_ids`` as ``.npy``, ``loss_mask`` as ``.npy`` and ``segments`` as JSON, one after another, so that it
tells its own type and length. A group of records is one record, as grain wants it.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any

import numpy as np

from headrace.errors import UserError
from headrace.flow.task import TaskContext
from headrace.formats.format import Part, SequenceFormat
from headrace.formats.samples import npy_header, rows_in, sample_blocks, stored
from headrace.sequence.reader import SequenceReader

# One thread a writer: workers are processes already.
OPTIONS = "group_size:1,uncompressed,max_parallelism:1"


def library() -> Any:
    """The module that writes ArrayRecord.

    Raises:
        UserError: it is not installed.
    """
    try:
        from array_record.python import array_record_module
    except ImportError:
        raise UserError(
            "Writing ArrayRecord needs array_record, which is built for Linux and Apple silicon.",
            "array_record",
            "Run `pip install 'headrace[formats]'`.",
        ) from None
    return array_record_module


class ArrayRecord(SequenceFormat):
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
