"""Shuffle: put a partition's tokens into rows, the rows into their final order, and write the shards.

One task per partition. What the ledger says is counted again here, from the rows as they are written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.flow.exchange import partition_bytes, partition_counts, read_partition
from headrace.flow.slices import copy
from headrace.flow.task import TaskContext
from headrace.sequence.context import PlacedRows, rearrange
from headrace.sequence.layout import BASE, INNER, MOVED
from headrace.sequence.parameters import SequenceParameters
from headrace.sequence.repartition import row_keys
from headrace.sequence.store import SEGMENT, schema
from headrace.sequence.windows import JOINED, KINDS, PADDING

# Tokens as read and as placed, with their loss and segments: 3.9 measured with two sources and FIM.
_MEMORY_PER_BYTE = 4


def plan(sequence: SequenceParameters, ctx: TaskContext) -> list[dict[str, Any]]:
    """One task per partition that has rows."""
    counts = partition_counts(ctx, "repartition", "moved")
    sizes = partition_bytes(ctx, "repartition", "moved") if len(counts) else counts
    each = sequence.shards(ctx).each
    return [
        {"partition": int(p), "bytes": int(sizes[p]), "shard": -(-int(sizes[p]) // each), "size": int(sizes[p])}
        for p in np.flatnonzero(counts)
    ]


def memory(spec: dict[str, Any]) -> int:
    """A task can work shard by shard, so it needs room for one."""
    return _MEMORY_PER_BYTE * int(spec["shard"])


def work(sequence: SequenceParameters, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
    """Write the shards of one partition."""
    layout = sequence.shards(ctx)
    numbers = spec["partition"] * layout.each + np.arange(layout.each)
    # Every pass reads the whole partition and keeps the shards that fit: more passes if memory is short.
    passes = min(layout.each, max(1, -(-_MEMORY_PER_BYTE * spec["bytes"] // max(1, ctx.memory))))
    sources = len(ctx.input("tokens").manifest.extra["sources"])
    counts = Counts.of(sources)
    context = sequence.section.fim_level == "context"
    for group in np.array_split(numbers, passes):
        for part, chunks in parts(sequence, ctx, spec["partition"], group):
            done = laid(sequence, ctx, chunks)
            counts.before += by_source(done.segments, sources)
            if context:
                done = rearrange(sequence, ctx, done)
            with ctx.shard(".arrow", part=int(part - numbers[0])) as out:
                write_shard(out.path, done)
                out.rows = len(done.tokens)
            counts.add(done, by_source(done.segments, sources))
            ctx.progress(rows=len(done.tokens), bytes=done.tokens.nbytes)
    return counts.to_json()


@dataclass
class Counts:
    """The contents of rows, by source where they have one.

    Attributes:
        before: int64[sources], tokens before context-level fill-in-the-middle.
        placed: int64[sources], tokens as written.
        loss: int64[sources], targets that carry loss.
        kinds: int64[sources, 256], segments by source and kind; padding counts under source 0.
        rows: rows.
        padding: tokens of padding.
    """

    before: np.ndarray
    placed: np.ndarray
    loss: np.ndarray
    kinds: np.ndarray
    rows: int = 0
    padding: int = 0

    @staticmethod
    def of(sources: int) -> Counts:
        """Counts of no rows."""
        before, placed, loss = (np.zeros(sources, dtype=np.int64) for _ in range(3))
        return Counts(before, placed, loss, np.zeros((sources, 256), dtype=np.int64))

    def add(self, done: PlacedRows, placed: np.ndarray) -> None:
        """Count the rows of a shard."""
        self.placed += placed
        self.loss += targets_with_loss(done, len(placed))
        np.add.at(self.kinds, (done.segments["source"], done.segments["kind"]), 1)
        self.rows += len(done.tokens)
        self.padding += done.tokens.size - int(placed.sum())

    def to_json(self) -> dict[str, Any]:
        """What the task returns."""
        kinds = {name: self.kinds[:, kind].tolist() for kind, name in KINDS.items()}
        sums = {name: getattr(self, name).tolist() for name in ("before", "placed", "loss")}
        return {"rows": self.rows, "padding": self.padding, "segments": kinds, **sums}


def by_source(segments: np.ndarray, sources: int) -> np.ndarray:
    """Tokens of each source: int64[sources]; padding belongs to none."""
    out = np.zeros(sources, dtype=np.int64)
    real = segments[segments["kind"] != PADDING]
    np.add.at(out, real["source"], real["length"].astype(np.int64))
    return out


Chunk = tuple[np.ndarray, np.ndarray, np.ndarray]


def parts(
    sequence: SequenceParameters, ctx: TaskContext, partition: int, group: np.ndarray
) -> Iterator[tuple[int, list[Chunk]]]:
    """The shards of a group, each with chunks of records, their payload, and the start of each record in it."""
    layout = sequence.shards(ctx)
    held: dict[int, list[Chunk]] = {int(part): [] for part in group}
    for records, payload in read_partition(ctx, "repartition", "moved", partition, MOVED, payload=True):
        lengths = records["length"].astype(np.int64)
        starts = np.cumsum(lengths) - lengths
        shards = layout.shard(row_keys(sequence, records["to"]))
        for part, chunks in held.items():
            mine = shards == part
            if mine.all():
                chunks.append((records, payload, starts))
            elif mine.any():
                chunks.append(taken(records[mine], payload, starts[mine]))
    for part in list(held):
        chunks = held.pop(part)
        if chunks:
            yield part, chunks


def taken(records: np.ndarray, payload: np.ndarray, starts: np.ndarray) -> Chunk:
    """Some records with just their payload."""
    lengths = records["length"].astype(np.int64)
    ends = np.cumsum(lengths)
    out = np.empty(int(ends[-1]), dtype=np.uint8)
    copy(payload, starts, lengths, out, ends - lengths)
    return records, out, ends - lengths


def laid(sequence: SequenceParameters, ctx: TaskContext, chunks: list[Chunk]) -> PlacedRows:
    """Put the records of one shard into rows. Empties ``chunks``, to free memory as they are placed."""
    records = np.concatenate([chunk[0] for chunk in chunks])
    numbers = np.unique(records["to"])
    # Rows with equal keys, should there ever be any, keep their packing order.
    order = np.argsort(row_keys(sequence, numbers), kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    rows = rank[np.searchsorted(numbers, records["to"])]
    n, width = len(numbers), sequence.seq_len + 1
    tokens = np.full((n, width), sequence.special(ctx)["pad"], dtype=ctx.input("tokens").manifest.extra["dtype"])
    segments, rows_of = with_padding(records, rows, n, width)
    # Padding is no target; nor is the token that a cut document repeats, which the previous piece predicted.
    pad = np.flatnonzero(segments["kind"] == PADDING)
    within = (segments["offset"] > 0) | ((segments["kind"] & (INNER | JOINED)) == INNER)
    again = np.flatnonzero((segments["kind"] != PADDING) & (segments["start"] > 0) & within)
    masked = np.zeros(n, dtype=bool)
    masked[rows[records["masked"] > 0]] = masked[rows_of[pad]] = masked[rows_of[again]] = True
    loss = np.ones((n, width), dtype=bool) if masked.any() else None
    segments["kind"][segments["kind"] != PADDING] &= BASE | JOINED
    flat, size = tokens.reshape(-1).view(np.uint8), tokens.itemsize
    at = 0
    while chunks:
        some, payload, starts = chunks.pop(0)
        to = rows[at : at + len(some)] * width + some["start"]
        counts = some["tokens"].astype(np.int64)
        copy(payload, starts, counts * size, flat, to * size)
        mine = some["masked"] > 0
        if loss is not None and mine.any():
            copy(payload, (starts + counts * size)[mine], counts[mine], loss.reshape(-1).view(np.uint8), to[mine])
        at += len(some)
    if loss is not None:
        loss[rows_of[pad]] &= np.arange(width) < segments["start"][pad, None]
        loss[rows_of[again], segments["start"][again]] = False
    return PlacedRows(numbers[order], tokens, loss, masked, segments, rows_of)


def with_padding(records: np.ndarray, rows: np.ndarray, n: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Segments in row order, with a segment of padding after each partial row, and int64 the row of each."""
    fill = np.bincount(rows, weights=records["tokens"], minlength=n).astype(np.int64)
    short = np.flatnonzero(fill < width)
    segments = np.zeros(len(records) + len(short), dtype=SEGMENT)
    real, pad = segments[: len(records)], segments[len(records) :]
    for name in ("start", "row", "offset", "source", "kind", "epoch"):
        real[name] = records[name]
    real["length"] = records["tokens"]
    pad["start"], pad["length"], pad["kind"] = fill[short], width - fill[short], PADDING
    rows = np.concatenate([rows, short])
    order = np.lexsort((segments["start"], rows))
    return segments[order], rows[order]


def targets_with_loss(done: PlacedRows, sources: int) -> np.ndarray:
    """The number of targets of each source that carry loss: int64[sources]. A row's first token is not a target."""
    segments, rows = done.segments, done.rows
    first = segments["start"] == 0
    counts = segments["length"].astype(np.int64) - first
    if done.loss is not None:
        sums = np.zeros((len(done.loss), done.loss.shape[1] + 1), dtype=np.int32)
        np.cumsum(done.loss, axis=1, out=sums[:, 1:])
        start = np.maximum(segments["start"], 1)
        counts = (sums[rows, segments["start"] + segments["length"]] - sums[rows, start]).astype(np.int64)
    real = segments["kind"] != PADDING
    out = np.zeros(sources, dtype=np.int64)
    np.add.at(out, segments["source"][real], counts[real])
    return out


def write_shard(path: Path, done: PlacedRows) -> None:
    """Write rows as one Arrow record batch; the same rows give the same bytes."""
    n, width = done.tokens.shape
    columns = schema(width - 1, done.tokens.dtype)
    items = pa.py_buffer(done.tokens.reshape(-1))
    tokens = pa.Array.from_buffers(
        columns.field("tokens").type,
        n,
        [None],
        children=[pa.Array.from_buffers(pa.from_numpy_dtype(done.tokens.dtype), n * width, [None, items])],
    )
    bounds = np.zeros(n + 1, dtype=np.int32)
    np.cumsum(np.bincount(done.rows, minlength=n), out=bounds[1:])
    # A row without a mask is null, and its bits, which nobody reads, are zero.
    bits = np.zeros(-(-n * width // 8), dtype=np.uint8)
    if done.loss is not None:
        bits = np.packbits(done.loss & done.masked[:, None], bitorder="little")
    loss = pa.Array.from_buffers(
        columns.field("loss").type,
        n,
        [pa.py_buffer(np.packbits(done.masked, bitorder="little"))],
        children=[pa.Array.from_buffers(pa.bool_(), n * width, [None, pa.py_buffer(bits)])],
    )
    struct = columns.field("segments").type.value_type
    fields = [
        pa.Array.from_buffers(
            field.type, len(done.segments), [None, pa.py_buffer(np.ascontiguousarray(done.segments[field.name]))]
        )
        for field in struct
    ]
    segments = pa.Array.from_buffers(
        columns.field("segments").type,
        n,
        [None, pa.py_buffer(bounds)],
        children=[pa.Array.from_buffers(struct, len(done.segments), [None], children=fields)],
    )
    batch = pa.record_batch([tokens, loss, segments], schema=columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, columns) as writer:
        writer.write_batch(batch)
