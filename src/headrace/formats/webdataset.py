"""WebDataset: tar files whose members of one name make a sample.

Row 7 is ``000000007.input_ids.npy``, ``000000007.loss_mask.npy`` and ``000000007.segments.json``. Members are POSIX
ustar, owned by nobody and of no time. (webdataset 1.0.2, ``writer.py``; POSIX.1-2017, pax, "ustar Interchange Format".)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.flow.task import TaskContext
from headrace.formats.format import Part, SequenceFormat
from headrace.formats.samples import npy_header, rows_in, sample_blocks, stored
from headrace.sequence.reader import SequenceReader

BLOCK = 512
RECORD = 20 * BLOCK  # a tar file's size is a multiple of this

# The fields of a header between its name, its size and its checksum, and after it.
MODE = b"0000444\0" + 2 * b"0000000\0"
TIME = b"%011o\0" % 0
REST = (b" 0" + bytes(100) + b"ustar\x0000").ljust(BLOCK - 155, b"\0")
CONSTANT = sum(MODE) + sum(TIME) + sum(b" " * 7) + sum(REST)


class WebDataset(SequenceFormat):
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
                    pieces += _member(b"%09d.input_ids.npy" % sample.row, ids, sample.tokens)
                    pieces += _member(b"%09d.loss_mask.npy" % sample.row, mask, sample.loss)
                    pieces += _member(b"%09d.segments.json" % sample.row, b"", sample.segments)
                file.write(b"".join(pieces))
            file.write(bytes(2 * BLOCK))
            file.write(bytes(-file.tell() % RECORD))
        return {}


def _member(name: bytes, head: bytes, body: bytes | memoryview) -> tuple[bytes | memoryview, ...]:
    """A header, the contents of a file in two parts, and what fills its last block."""
    size = len(head) + len(body)
    length = b"%011o\0" % size
    # The checksum counts its own field as spaces; the last of them is in REST.
    checksum = b"%06o\0" % (CONSTANT + sum(name) + sum(length))
    return name.ljust(100, b"\0") + MODE + length + TIME + checksum + REST, head, body, bytes(-size % BLOCK)
