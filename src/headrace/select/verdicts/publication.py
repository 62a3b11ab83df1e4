"""Publish the sidecar of verdicts: what the filters found and deduplication decided, one shard at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.documents.store import read_columns
from headrace.flow.exchange import read_partition
from headrace.flow.task import TaskContext
from headrace.select import sidecar
from headrace.select.verdicts.columns import columns, whole
from headrace.select.verdicts.counts import tally
from headrace.select.verdicts.deduplication import decisions_between
from headrace.select.verdicts.evidence import DECISION, place
from headrace.select.verdicts.partitions import destinations_of
from headrace.select.verdicts.quality import REASON, Selection

SCHEMA = pa.schema(
    [
        pa.field("keep", pa.bool_(), nullable=False),
        pa.field("reason", pa.string()),  # null if kept
        pa.field("evidence", pa.string()),  # JSON; null if kept
        pa.field("split", pa.string(), nullable=False),  # train, validation or test, for removed documents too
    ]
)

ROW_GROUP = 1 << 16


def publish(
    ctx: TaskContext,
    shard: int,
    sources: Sequence[str],
    all_sources: Sequence[str],
    against: Sequence[int],
    selection: Selection | None = None,
) -> dict[str, Any]:
    """Write the verdicts on the documents of a shard.

    Args:
        ctx: the task, in the phase ``publish``.
        shard: the documents shard.
        sources: the recipe's sources.
        all_sources: the sources of all documents that may be kept: the recipe's, then those of references.
        against: for each reference source, the number of its set of references.
        selection: what is kept by quality, if anything is removed for that.

    Returns:
        ``counts``, from :func:`headrace.select.verdicts.counts.tally`.
    """
    filtered = read_columns(ctx.scratch("filter", f"filtered-{shard:05d}.parquet"))
    records, names = _decisions(ctx, shard)
    start = int(ctx.input("documents").row_offsets[shard])
    keep, reason, evidence, split = columns(filtered, records, names, start, all_sources, against)
    if selection is not None:
        mask = np.zeros(len(keep), dtype=bool)
        rows, told = selection.removals(ctx, shard)
        mask[rows] = True
        order = pa.array(told, pa.string()).take(pa.array(np.argsort(rows)))
        reason = pc.if_else(pa.array(mask), pa.scalar(REASON), reason)
        evidence = pc.replace_with_mask(evidence, pa.array(mask), order)
        keep = pc.is_null(reason)
    table = pa.table([keep, reason, evidence, split], schema=SCHEMA)
    with ctx.shard() as out:
        pq.write_table(
            table,
            out.path,
            compression=sidecar.COMPRESSION,
            row_group_size=ROW_GROUP,
            use_dictionary=["reason", "split"],  # evidence hardly ever repeats within a row group
            write_statistics=["keep", "reason", "split"],
        )
        out.rows = table.num_rows
    return {"counts": tally(filtered.column("source"), table.column("reason"), filtered.column("split"), sources)}


def left(ctx: TaskContext, shard: int) -> npt.NDArray[np.bool_]:
    """The documents of a shard that neither filters nor deduplication remove: bool[n]."""
    filtered = read_columns(ctx.scratch("filter", f"filtered-{shard:05d}.parquet"), ["reason"])
    at = place(_decisions(ctx, shard)[0], int(ctx.input("documents").row_offsets[shard]), filtered.num_rows)
    return np.asarray(whole(filtered.column("reason")).is_null().to_numpy(zero_copy_only=False) & (at < 0))


def _decisions(ctx: TaskContext, shard: int) -> tuple[npt.NDArray[np.void], npt.NDArray[np.uint8]]:
    documents = ctx.input("documents")
    start, stop = documents.row_offsets[shard : shard + 2].tolist()
    partition = destinations_of(len(documents.shards))[shard]
    chunks = read_partition(ctx, "deduplicate", "decisions", partition, DECISION, payload=True)
    return decisions_between(chunks if ctx.tasks("deduplicate") else (), start, stop)
