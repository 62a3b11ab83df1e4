"""WebDataset: tar files whose members of one name make a sample.

Row 7 is ``000000007.input_ids.npy``, ``000000007.loss_mask.npy`` and ``000000007.segments.json``. Members are POSIX
ustar, owned by nobody and of no time. (webdataset 1.0.2, ``writer.py``; POSIX.1-2017, pax, "ustar Interchange Format".)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
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
DIGITS = 9  # of a row's number


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
                    digits = b"%0*d" % (DIGITS, sample.row)
                    pieces += _member(b".input_ids.npy", ids, len(sample.tokens)).around(digits, sample.tokens)
                    pieces += _member(b".loss_mask.npy", mask, len(sample.loss)).around(digits, sample.loss)
                    pieces += _member(b".segments.json", b"", len(sample.segments)).around(digits, sample.segments)
                file.write(b"".join(pieces))
            file.write(bytes(2 * BLOCK))
            file.write(bytes(-file.tell() % RECORD))
        return {}


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
