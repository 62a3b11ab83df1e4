"""Examples for training an annotator: chosen by keyed hash, brought into keyed order, read in batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.flow.exchange import read_partition
from headrace.flow.keys import unit
from headrace.flow.slices import gather
from headrace.flow.task import TaskContext

EXAMPLE = np.dtype(
    [
        ("key", "<u8"),  # the order of examples
        ("draw", "<u8"),  # decides what is held out, and the shares of a learning curve
        ("length", "<u4"),  # of the payload: the text
        ("source", "<u2"),
        ("label", "u1"),  # 1: positive
    ]
)
LONGEST = 1 << 18  # bytes of an example; the rest of a longer text is left out
PARTITION_BYTES = 32 << 20
MOST_PARTITIONS = 1024
BATCH_BYTES = 4 << 20

SCHEMA = pa.schema([("text", pa.large_string()), ("label", pa.uint8()), ("source", pa.uint16())])
"""A batch of examples: ``source`` counts the annotator's sources, see ``Annotator.sources``."""


def partitions_for(size: int) -> int:
    """How many partitions hold that many bytes of examples: a power of two."""
    return int(min(MOST_PARTITIONS, 1 << max(0, (size - 1) // PARTITION_BYTES).bit_length()))


@dataclass(frozen=True)
class Examples:
    """The examples of an annotator, in keyed order. Memory is bounded by a partition.

    Attributes:
        ctx: a task of a phase after ``sample``.
        partitions: the partitions they are in.
        held_out: the share that is held out.
    """

    ctx: TaskContext
    partitions: int
    held_out: float

    def training(self, share: float = 1.0) -> Iterator[pa.RecordBatch]:
        """Batches of the examples to train on, with :data:`SCHEMA`; a smaller share is part of a larger one."""
        return self._batches(self.held_out, self.held_out + (1 - self.held_out) * share)

    def testing(self) -> Iterator[pa.RecordBatch]:
        """Batches of those that are held out."""
        return self._batches(0.0, self.held_out)

    def _batches(self, low: float, high: float) -> Iterator[pa.RecordBatch]:
        for partition in range(self.partitions):
            chunks = list(read_partition(self.ctx, "sample", "examples", partition, EXAMPLE, payload=True))
            if not chunks:
                continue
            records = np.concatenate([records for records, _ in chunks])
            texts = np.concatenate([payload for _, payload in chunks])
            place = unit(records["draw"])
            chosen = np.flatnonzero((place >= low) & (place < high))
            chosen = chosen[np.argsort(records["key"][chosen], kind="stable")]
            lengths = records["length"].astype(np.int64)
            starts = np.cumsum(lengths) - lengths
            ends = np.cumsum(lengths[chosen])
            cuts = np.searchsorted(ends, np.arange(BATCH_BYTES, int(ends[-1]) if len(ends) else 0, BATCH_BYTES))
            for some in np.split(chosen, np.unique(cuts)):
                if len(some):
                    yield _batch(records[some], texts, starts[some])


def _batch(
    records: npt.NDArray[np.void], texts: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64]
) -> pa.RecordBatch:
    lengths = records["length"].astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    data = gather(texts, starts, lengths)
    column = pa.Array.from_buffers(pa.large_string(), len(records), [None, pa.py_buffer(offsets), pa.py_buffer(data)])
    about = (np.ascontiguousarray(records[name]) for name in ("label", "source"))
    return pa.record_batch([column, *map(pa.array, about)], schema=SCHEMA)


def cut(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where the first :data:`LONGEST` bytes of each text end, between two characters: int64[n], the lengths."""
    lengths = np.minimum(np.diff(offsets), LONGEST)
    for i in np.flatnonzero(np.diff(offsets) > LONGEST).tolist():
        while data[offsets[i] + lengths[i]] & 0xC0 == 0x80:
            lengths[i] -= 1
    return lengths
