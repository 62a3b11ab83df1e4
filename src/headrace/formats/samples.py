"""A row as a sample, for formats whose readers hand rows out one by one: tokens, loss mask, segments as JSON."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from headrace.errors import UserError
from headrace.flow.task import TaskContext
from headrace.formats.format import Exported, Part, blocks, loss_mask
from headrace.sequence.reader import ELSEWHERE, Segments, SequenceReader
from headrace.sequence.windows import KINDS, PADDING

FILE_BYTES = 64 << 20
"""About how large files are: the size limit of MosaicML's writer, and what litdata's guides choose."""


PLACE = {"start": "start", "length": "length", "kind": "kind"}
FIELDS = PLACE | {"source": "source", "epoch": "epoch", "offset": "offset", "document": "row"}
"""What is told of segments, by the column that has it; of padding its place alone."""


class Sample(NamedTuple):
    """The fields of a row as bytes.

    Attributes:
        row: its number in the sequence.
        tokens: L + 1 ids, little-endian, of the sequence's dtype.
        loss: L + 1 bytes, 1 where the token carries loss as a target, else 0.
        segments: JSON: a list of objects with the fields of :class:`headrace.sequence.provenance.ReplayedSegment` that
            are in :data:`FIELDS`; null if the sequence does not know its segments.
    """

    row: int
    tokens: memoryview
    loss: memoryview
    segments: bytes


def sample_blocks(ctx: TaskContext, sequence: SequenceReader, part: Part) -> Iterator[list[Sample]]:
    """The rows of a part, a block of :data:`headrace.formats.format.BLOCK_TOKENS` at a time."""
    for start, stop in blocks(sequence, part):
        segments = sequence.segments_in(start, stop)
        tokens = _rows(sequence.rows(start, stop), stored(sequence))
        loss = _rows(loss_mask(sequence, start, stop, segments))
        told = [b"null"] * (stop - start) if segments is None else _described(sequence.sources, segments)
        yield list(map(Sample, range(start, stop), tokens, loss, told))
        ctx.progress(rows=stop - start, bytes=(len(tokens[0]) + len(loss[0])) * (stop - start))


def token_blocks(ctx: TaskContext, sequence: SequenceReader, part: Part) -> Iterator[list[memoryview]]:
    """The tokens of :func:`sample_blocks` alone."""
    for start, stop in blocks(sequence, part):
        tokens = _rows(sequence.rows(start, stop), stored(sequence))
        yield tokens
        ctx.progress(rows=stop - start, bytes=len(tokens[0]) * (stop - start))


def _rows(array: np.ndarray, dtype: np.dtype | None = None) -> list[memoryview]:
    """The bytes of each row of an array."""
    data = np.ascontiguousarray(array, dtype=dtype).data.cast("B")
    size = len(data) // len(array)
    return [data[at : at + size] for at in range(0, len(data), size)]


def stored(sequence: SequenceReader) -> np.dtype:
    """The type of tokens in files."""
    return sequence.dtype.newbyteorder("<")


def rows_in(sequence: SequenceReader, loss: bool = True) -> int:
    """How many rows make a file of about :data:`FILE_BYTES`, with or without their loss masks."""
    return max(1, FILE_BYTES // ((sequence.seq_len + 1) * (sequence.dtype.itemsize + loss)))


def _described(sources: Sequence[str], segments: Segments) -> list[bytes]:
    first, last = int(segments.bounds[0]), int(segments.bounds[-1])
    known = [(field, name) for field, name in FIELDS.items() if name in segments.columns]
    values = {field: segments.columns[name][first:last].tolist() for field, name in known}
    padding = [kind == PADDING for kind in values["kind"]]
    values["kind"] = [KINDS[kind] for kind in values["kind"]]
    if "source" in values:
        values["source"] = [None if pad else sources[i] for i, pad in zip(values["source"], padding, strict=True)]
    if "document" in values:
        values["document"] = [None if row == ELSEWHERE else row for row in values["document"]]
    told = [
        dict(zip(PLACE if pad else values, row, strict=False))
        for pad, row in zip(padding, zip(*values.values(), strict=True), strict=True)
    ]
    return [orjson.dumps(told[a:b]) for a, b in pairwise((segments.bounds - first).tolist())]


def npy_header(width: int, dtype: np.dtype) -> bytes:
    """What stands before the values of an array of a row in the ``.npy`` format."""
    out = io.BytesIO()
    about = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (width,)}
    np.lib.format.write_array_header_1_0(out, about)
    return out.getvalue()


def write_indexed(path: Path, part: Part, between: bytes, samples: Iterable[Sequence[bytes | memoryview]]) -> None:
    """Write samples behind a table of where they are, as MDS shards and litdata chunks have them: uint32 n, the n
    samples' offsets in the file and their end, uint32[n + 1], something in between, the samples.

    Args:
        path: the file.
        part: its rows.
        between: what stands between the table and the samples.
        samples: of the part, encoded, in lists.

    Raises:
        UserError: the file is too large for such a table.
    """
    at = 4 * (part.rows + 2) + len(between)
    offsets = [at]
    with open(path, "wb") as file:
        file.seek(at)
        for encoded in samples:
            for one in encoded:
                at += len(one)
                offsets.append(at)
            if at >= 1 << 32:
                raise UserError(
                    f"A file of {part.rows:,} rows is larger than the 4 GB that this format allows.",
                    "--rows-per-file",
                    "Put fewer rows in each file.",
                )
            file.write(b"".join(encoded))
        file.seek(0)
        file.write(np.array([part.rows, *offsets], dtype="<u4").tobytes() + between)


def by_sequence(
    ctx: TaskContext, sequences: Sequence[Exported], parts: Sequence[Part]
) -> Iterator[tuple[Exported, list[tuple[Part, dict[str, Any]]]]]:
    """Each sequence with its parts, and with the entry (``bytes``, ``digest``) of the file that each part wrote."""
    entries = [marker["files"][0] for marker in ctx.markers("write")]
    written = list(zip(parts, entries, strict=True))
    for index, one in enumerate(sequences):
        yield one, [(part, entry) for part, entry in written if part.sequence == index]


def write_index(ctx: TaskContext, stage: str, index: dict[str, Any]) -> None:
    """Write a stage's ``index.json``."""
    with ctx.file(f"{stage}/index.json") as out:
        out.path.write_bytes(orjson.dumps(index, option=orjson.OPT_SORT_KEYS))
