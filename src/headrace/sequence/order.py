"""Order: put the tokens of a partition into rows, the rows into their final order, and write the shards.

One task a partition. What the ledger says is counted here again, from the rows as they are written.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from headrace.flow.exchange import partition_bytes, partition_counts, read_partition
from headrace.flow.task import TaskContext
from headrace.sequence.layout import MOVED, SHARD_BYTES
from headrace.sequence.place import copy
from headrace.sequence.scatter import row_keys
from headrace.sequence.store import SEGMENT, schema
from headrace.sequence.windows import KINDS, PADDING

if TYPE_CHECKING:
    from headrace.sequence.step import Sequence

# Tokens as they come, as they are placed, and their loss and segments beside.
_MEMORY_PER_BYTE = 3


def plan(step: Sequence, ctx: TaskContext) -> list[dict[str, Any]]:
    """One task a partition that has rows."""
    counts = partition_counts(ctx, "scatter", "moved")
    sizes = partition_bytes(ctx, "scatter", "moved") if len(counts) else counts
    return [{"partition": int(p), "bytes": int(sizes[p])} for p in np.flatnonzero(counts)]


def memory(spec: dict[str, Any]) -> int:
    """A task can go shard by shard, so it needs room for one."""
    return _MEMORY_PER_BYTE * min(int(spec["bytes"]), SHARD_BYTES)


class Rows(NamedTuple):
    """Rows of one shard, in their final order.

    Attributes:
        tokens: [R, L + 1].
        loss: bool[R, L + 1], True where nothing masks.
        masked: bool[R], whether a row has a mask at all.
        bounds: int32[R + 1], the segments of each row.
        segments: SEGMENT[n].
    """

    tokens: np.ndarray
    loss: np.ndarray
    masked: np.ndarray
    bounds: np.ndarray
    segments: np.ndarray


def work(step: Sequence, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
    """Write the shards of one partition."""
    layout = step.shards(ctx)
    numbers = spec["partition"] * layout.each + np.arange(layout.each)
    # Every pass reads the whole partition and keeps the shards that fit: more passes when memory is short.
    passes = min(layout.each, max(1, -(-_MEMORY_PER_BYTE * spec["bytes"] // max(1, ctx.memory))))
    sources = len(ctx.input("tokens").manifest.extra["sources"])
    placed, loss = np.zeros(sources, dtype=np.int64), np.zeros(sources, dtype=np.int64)
    rows, padding, kinds = 0, 0, dict.fromkeys(KINDS.values(), 0)
    for group in np.array_split(numbers, passes):
        for part, chunks in parts(step, ctx, spec["partition"], group):
            done = laid(step, ctx, chunks)
            with ctx.shard(".arrow", part=int(part - numbers[0])) as out:
                write_shard(out.path, done)
                out.rows = len(done.tokens)
            real = done.segments[done.segments["kind"] != PADDING]
            np.add.at(placed, real["source"], real["length"].astype(np.int64))
            loss += targets_with_loss(done, sources)
            padding += int(done.segments["length"].sum() - real["length"].sum())
            for kind, name in KINDS.items():
                kinds[name] += int((done.segments["kind"] == kind).sum())
            rows += len(done.tokens)
            ctx.progress(rows=len(done.tokens), bytes=done.tokens.nbytes)
    return {"rows": rows, "placed": placed.tolist(), "loss": loss.tolist(), "padding": padding, "segments": kinds}


Chunk = tuple[np.ndarray, np.ndarray, np.ndarray]


def parts(step: Sequence, ctx: TaskContext, partition: int, group: np.ndarray) -> Iterator[tuple[int, list[Chunk]]]:
    """The shards of a group, each with chunks of records, their payload and where each record begins in it."""
    layout = step.shards(ctx)
    held: dict[int, list[Chunk]] = {int(part): [] for part in group}
    for records, payload in read_partition(ctx, "scatter", "moved", partition, MOVED, payload=True):
        lengths = records["length"].astype(np.int64)
        starts = np.cumsum(lengths) - lengths
        shards = layout.shard(records["to"], row_keys(step, records["to"]))
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
    """Some records with their payload alone."""
    lengths = records["length"].astype(np.int64)
    ends = np.cumsum(lengths)
    out = np.empty(int(ends[-1]), dtype=np.uint8)
    copy(payload, starts, lengths, out, ends - lengths)
    return records, out, ends - lengths


def laid(step: Sequence, ctx: TaskContext, chunks: list[Chunk]) -> Rows:
    """Put the records of one shard into rows. Empties ``chunks``, so that they make room as they are placed."""
    records = np.concatenate([chunk[0] for chunk in chunks])
    numbers = np.unique(records["to"])
    keys = row_keys(step, numbers)
    if keys is not None:
        order = np.lexsort((numbers, keys))
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
    else:
        rank = np.arange(len(numbers))
    rows = rank[np.searchsorted(numbers, records["to"])]
    special, width = step.special(ctx), step.seq_len + 1
    tokens = np.full((len(numbers), width), special["pad"], dtype=ctx.input("tokens").manifest.extra["dtype"])
    loss = np.ones((len(numbers), width), dtype=bool)
    flat, flat_loss, size = tokens.reshape(-1).view(np.uint8), loss.reshape(-1).view(np.uint8), tokens.itemsize
    at = 0
    while chunks:
        some, payload, starts = chunks.pop(0)
        to = rows[at : at + len(some)] * width + some["start"]
        counts = some["tokens"].astype(np.int64)
        copy(payload, starts, counts * size, flat, to * size)
        mine = some["masked"] > 0
        if mine.any():
            copy(payload, (starts + counts * size)[mine], counts[mine], flat_loss, to[mine])
        at += len(some)
    masked = np.zeros(len(numbers), dtype=bool)
    masked[rows[records["masked"] > 0]] = True
    segments, rows = with_padding(records, rows, len(numbers), width)
    bounds = np.zeros(len(numbers) + 1, dtype=np.int32)
    np.cumsum(np.bincount(rows, minlength=len(numbers)), out=bounds[1:])
    # Padding is no target; nor is the token that a cut document repeats, which the piece before has predicted.
    pad = np.flatnonzero(segments["kind"] == PADDING)
    again = np.flatnonzero((segments["kind"] != PADDING) & (segments["start"] > 0) & (segments["offset"] > 0))
    loss[rows[pad]] &= np.arange(width) < segments["start"][pad, None]
    loss[rows[again], segments["start"][again]] = False
    masked[rows[pad]] = masked[rows[again]] = True
    return Rows(tokens, loss, masked, bounds, segments)


def with_padding(records: np.ndarray, rows: np.ndarray, n: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Segments in row order, a segment of padding after rows that are not full, and int64 the row of each."""
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


def targets_with_loss(done: Rows, sources: int) -> np.ndarray:
    """How many targets of each source carry loss: int64[sources]. A row's first token is no target."""
    segments = done.segments
    rows = np.repeat(np.arange(len(done.tokens)), np.diff(done.bounds))
    first = segments["start"] == 0
    counts = segments["length"].astype(np.int64) - first
    if done.masked.any():
        sums = np.zeros((len(done.loss), done.loss.shape[1] + 1), dtype=np.int32)
        np.cumsum(done.loss, axis=1, out=sums[:, 1:])
        start = np.maximum(segments["start"], 1)
        counts = (sums[rows, segments["start"] + segments["length"]] - sums[rows, start]).astype(np.int64)
    real = segments["kind"] != PADDING
    out = np.zeros(sources, dtype=np.int64)
    np.add.at(out, segments["source"][real], counts[real])
    return out


def write_shard(path: Path, done: Rows) -> None:
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
    # A row without a mask is null, and its bits, which nobody reads, are zero.
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
        [None, pa.py_buffer(done.bounds)],
        children=[pa.Array.from_buffers(struct, len(done.segments), [None], children=fields)],
    )
    batch = pa.record_batch([tokens, loss, segments], schema=columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, columns) as writer:
        writer.write_batch(batch)
