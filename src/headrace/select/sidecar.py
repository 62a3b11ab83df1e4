"""Sidecars: Parquet shards aligned row by row with the shards of documents.

A step that looks at each document separately has one phase with one task per shard; :func:`plan_reusable` and
:func:`write` are that phase without the looking. Row groups match those of the documents, so bytes depend on content
only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from headrace.flow.artifact import Artifact, ConservationError
from headrace.flow.reuse import task_key
from headrace.flow.task import TaskContext

BATCH_BYTES = 8 << 20  # the text of a documents row group; part of the layout, so it never depends on the memory budget
COMPRESSION = "zstd"

ARROW = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "str": pa.string()}
"""A measure's type -> the Arrow type."""

Look = Callable[[pa.RecordBatch], pa.Table]


def plan(ctx: TaskContext) -> list[dict[str, Any]]:
    """One task per shard of the input ``documents``, with the bytes of its largest row group."""
    return groups(ctx.input("documents"))


def groups(documents: Artifact) -> list[dict[str, Any]]:
    """For each shard ``{"shard", "bytes": of its largest row group, "size": of all}``."""
    import pyarrow.parquet as pq

    specs = []
    for shard in range(len(documents.shards)):
        metadata = pq.read_metadata(documents.shard_path(shard))
        sizes = [metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)]
        specs.append({"shard": shard, "bytes": max(sizes, default=0), "size": sum(sizes)})
    return specs


def plan_reusable(ctx: TaskContext) -> list[dict[str, Any]]:
    """:func:`plan` for rows that depend only on their document and the step's parameters, so that those of unchanged
    shards are reused."""
    params, shards = ctx.step.params(), ctx.input("documents").shards
    return [{**spec, "key": task_key(ctx.step, params, shards[spec["shard"]]["digest"])} for spec in plan(ctx)]


def write(
    ctx: TaskContext,
    spec: dict[str, Any],
    columns: Sequence[str],
    schema: pa.Schema,
    look: Look,
    together: bool = False,
) -> int:
    """Process the documents of one shard and write their rows.

    Args:
        ctx: the task.
        spec: from :func:`plan`.
        columns: the columns of documents that ``look`` needs, including ``text``.
        schema: the sidecar's schema.
        look: returns one row of that schema per document of the batch, each from its own document only.
        together: whether the last bits of a row depend on its batch, which is then never taken apart.

    Returns:
        The number of rows.
    """
    import pyarrow.parquet as pq

    from headrace.documents.store import read_batches

    documents = ctx.input("documents")
    shard = spec["shard"]
    first = int(documents.row_offsets[shard])
    with ctx.shard() as out, pq.ParquetWriter(out.path, schema, compression=COMPRESSION) as writer:
        for batch in read_batches(documents.shard_path(shard), columns, BATCH_BYTES):
            if ctx.careful and not together:
                tables = []
                for row in range(batch.num_rows):
                    ctx.at(f"document row {first + out.rows + row}")
                    tables.append(look(batch.slice(row, 1)))
                table = pa.concat_tables(tables).combine_chunks()
            else:
                ctx.at(f"document rows {first + out.rows} to {first + out.rows + batch.num_rows - 1}")
                table = look(batch)
            writer.write_table(table, row_group_size=batch.num_rows)
            out.rows += batch.num_rows
            ctx.progress(batch.num_rows, batch.column("text").nbytes)
        rows = out.rows
    return rows


def aligned_rows(
    ctx: TaskContext, roles: Sequence[str], shard: int, columns: Sequence[str], max_bytes: int
) -> Iterator[tuple[pa.RecordBatch, dict[str, pa.Table]]]:
    """The documents of a shard in batches, with their rows in some sidecars.

    Args:
        ctx: the task.
        roles: the step's inputs that are sidecars.
        shard: the shard.
        columns: columns of documents.
        max_bytes: maximum size of a batch, unless a single row is larger.

    Raises:
        ConservationError: a sidecar has a different number of rows.
    """
    from headrace.documents.store import read_batches, read_columns

    sidecars = {role: read_columns(ctx.input(role).shard_path(shard)) for role in roles}
    at = 0
    for batch in read_batches(ctx.input("documents").shard_path(shard), columns, max_bytes):
        yield batch, {role: table.slice(at, batch.num_rows) for role, table in sidecars.items()}
        at += batch.num_rows
    for role, table in sidecars.items():
        if table.num_rows != at:
            raise ConservationError(f"{role} shard {shard}: {table.num_rows} rows beside {at} documents")


def memory(spec: dict[str, Any]) -> int:
    """The least memory for a task: the largest row group as read, as Arrow, and as kernels need it."""
    return (16 << 20) + 4 * int(spec["bytes"])


def check_rows(ctx: TaskContext, rows: int) -> None:
    """Check that every document has its row.

    Raises:
        ConservationError: one has not.
    """
    documents = ctx.input("documents")
    if rows != documents.rows:
        raise ConservationError(f"{ctx.step.name}: {rows} rows beside {documents.rows} documents")
