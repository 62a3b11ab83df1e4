"""Where documents come from, by row: a table in scratch that any process maps and looks rows up in.

A sequence's segments are shuffled, so a block of rows asks for documents from all over the corpus. Reading those from
the shards of documents would decode most of their row groups for each block.
"""

from __future__ import annotations

import mmap

import numpy as np
import pyarrow as pa

from headrace.documents.store import SCHEMA, read_columns
from headrace.flow.artifact import Artifact
from headrace.flow.task import TaskContext
from headrace.select.licences.columns import with_licences

COLUMNS = ("id", "origin_file", "origin_row", "license", "repo", "path", "language")
TYPES = pa.schema([SCHEMA.field(name) for name in COLUMNS])


def _name(documents: Artifact, shard: int) -> str:
    return f"{documents.path.name}-{shard:05d}.arrow"


def write(ctx: TaskContext, documents: Artifact, shard: int, licences: Artifact | None) -> None:
    """Write the part of the table that holds a shard's documents, with their licenses as the run found them."""
    table = with_licences(read_columns(documents.shard_path(shard), COLUMNS), documents, shard, licences)
    table = table.cast(TYPES).combine_chunks()
    with ctx.intermediate(_name(documents, shard)) as out, pa.ipc.new_file(str(out.path), TYPES) as writer:
        writer.write_table(table, max_chunksize=max(1, len(table)))
    ctx.progress(rows=len(table))


class Origins:
    """The table, written by the phase ``prepare``.

    Args:
        ctx: a task of a later phase.
        documents: whose rows are looked up.
    """

    def __init__(self, ctx: TaskContext, documents: Artifact) -> None:
        self._ctx, self._documents = ctx, documents

    def of(self, rows: np.ndarray) -> pa.Table:
        """The columns :data:`COLUMNS` of some documents, in the order asked for.

        Args:
            rows: global document rows, integers[n].

        Raises:
            IndexError: there is no such document.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        if len(wanted) and not 0 <= wanted.min() <= wanted.max() < self._documents.rows:
            raise IndexError(f"documents {wanted.min()} to {wanted.max()} of {self._documents.rows}")
        unique, back = np.unique(wanted, return_inverse=True)
        shards = self._documents.row_offsets.searchsorted(unique, side="right") - 1
        pieces = [self._shard(k, unique[shards == k]) for k in np.unique(shards).tolist()]
        return pa.concat_tables([TYPES.empty_table(), *pieces]).take(pa.array(back.reshape(-1)))

    def _shard(self, shard: int, rows: np.ndarray) -> pa.Table:
        path = self._ctx.scratch("prepare", _name(self._documents, shard))
        with open(path, "rb") as file:
            # Arrow's own memory map reads the whole batch ahead.
            mapped = pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        batch = pa.ipc.open_file(pa.BufferReader(mapped)).get_batch(0)
        at = pa.array(rows - self._documents.row_offsets[shard])
        return pa.Table.from_batches([batch.take(at)])
