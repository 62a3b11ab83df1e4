"""Pack: sort a block of the document order and arrange it in rows.

One task per block. These are still only numbers: each segment goes to the token store shard that holds its document.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from headrace.errors import UserError
from headrace.flow.exchange import Spill, partition_counts, sorted_partition
from headrace.flow.task import TaskContext
from headrace.sequence.grouping import join
from headrace.sequence.layout import CUT, INNER, MORE, SAMPLED
from headrace.sequence.packing import (
    Segments,
    best_fit,
    concatenate,
    divided,
    longest_first,
    rows_of,
    with_ends,
)
from headrace.sequence.parameters import SequenceParameters
from headrace.sequence.windows import JOINED

# Documents that best-fit packing considers together: with this many, rows are over 99.9 % full for ordinary lengths
# (tests/sequence/test_pack.py), and the pieces take a few megabytes.
FIT_BLOCK = 1 << 16


def plan(sequence: SequenceParameters, ctx: TaskContext) -> list[dict[str, Any]]:
    """One task per nonempty block, with its position in its stream."""
    blocks = sequence.blocks(ctx)
    records = partition_counts(ctx, "sample", "sampled")
    tokens = np.zeros(blocks.count, dtype=np.int64)
    for task in range(ctx.tasks("sample")):
        tokens += np.load(ctx.scratch("sample", f"stream-{task:05d}.npy"))
    for joined in ctx.results("join") if sequence.groups else ():
        tokens[joined["block"]] = joined["tokens"]
    if sequence.section.pack.method == "best_fit":
        return [{"block": int(block), "rows": 0, "row": 0, "whole": True} for block in np.flatnonzero(records)]
    specs = []
    row = 0
    for stream in range(len(blocks.streams)):
        first, stop = (int(b) for b in blocks.first[stream : stream + 2])
        full = rows_of(int(tokens[first:stop].sum()), sequence.seq_len)
        rows = full if sequence.limit is None else min(full, -(-sequence.limit // sequence.seq_len))
        at = 0
        for block in range(first, stop):
            if records[block]:
                specs.append({"block": block, "first": at, "rows": rows, "row": row, "whole": rows == full})
            at += int(tokens[block])
        row += rows
    if sequence.split == "train" and row == 0:
        raise UserError(
            f"Stage {sequence.stage!r} has {int(tokens.sum())} tokens, too few for one row of {sequence.seq_len + 1}.",
            f"stages.{sequence.stage}",
            "Shorten sequence_length, add epochs or sources, or let sources share rows (pack.mix_sources).",
        )
    return specs


def work(sequence: SequenceParameters, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
    """Arrange one block in rows."""
    sources = len(ctx.input("tokens").manifest.extra["sources"])
    first_rows = ctx.input("documents").row_offsets
    totals = {name: np.zeros(sources, dtype=np.int64) for name in ("placed", "overlap", "left", "ends")}
    used = 0
    with Spill(ctx, "segments", CUT, len(first_rows) - 1) as spill:
        for records, segments, overlap, left, ends, more, joined in packed(sequence, ctx, spec):
            source = records["source"]
            np.add.at(totals["placed"], source[segments.document], segments.length.astype(np.int64))
            for name, values in (("overlap", overlap), ("left", left), ("ends", ends)):
                np.add.at(totals[name], source, values)
            used += more
            out = np.empty(len(segments.row), dtype=CUT)
            for name in ("row", "source", "epoch", "kind"):
                out[name] = records[name][segments.document]
            out["kind"] |= np.where(joined, JOINED, 0).astype(np.uint8)
            out["to"], out["start"], out["tokens"] = segments.row, segments.start, segments.length
            out["offset"], out["block"] = segments.offset, spec["block"]
            spill.add(np.searchsorted(first_rows, out["row"].astype(np.int64), side="right") - 1, out)
            ctx.progress(rows=len(records))
    counts = {name: values.tolist() for name, values in totals.items()}
    stop = spec["row"] + spec["rows"]
    return {"block": spec["block"], "used": used, "stop": stop, "whole": spec["whole"], **counts}


Packed = tuple[np.ndarray, Segments, np.ndarray, np.ndarray, np.ndarray, int, np.ndarray]


def packed(sequence: SequenceParameters, ctx: TaskContext, spec: dict[str, Any]) -> Iterator[Packed]:
    """The pieces of a block in order.

    Yields:
        records, their segments, and for each record int64[n] tokens in two rows, tokens in none, and tokens that end it
        (1 or 0); the number of rows used by this piece alone (best fit only); and bool[m], whether each segment goes on
        with the training document of the one before it in its row.
    """
    long = sequence.section.pack.prefer == "long"
    if sequence.section.pack.method == "best_fit":
        rows, least = 0, (sequence.seq_len + 2) // 2 if long else 0
        pieces = whole_documents(ctx, spec) if sequence.groups else in_pieces(ctx, spec, FIT_BLOCK)
        for records in pieces:
            lengths = records["length"].astype(np.int64)
            last, first = documents_of(records)
            documents = np.add.reduceat(lengths, first)
            totals = with_ends(documents, sequence.seq_len)
            fitted, used = best_fit(totals, sequence.seq_len, least)
            ends = np.zeros_like(lengths)
            ends[last] = totals - documents
            segments, joined = divided(fitted, first, lengths + ends) if len(first) < len(records) else (fitted, False)
            placed = np.bincount(segments.document, weights=segments.length, minlength=len(records)).astype(np.int64)
            left = left_out(fitted, first, lengths + ends)
            segments.row[:] += rows
            joined = np.broadcast_to(joined, segments.row.shape)
            yield records, segments, placed + left - lengths - ends, left, ends, used, joined
            rows += used
        return
    at = spec["first"]
    for records in _streamed(sequence, ctx, spec):
        if long:
            _, first = documents_of(records)
            records = records[longest_first(records["length"].astype(np.int64), first)]
        last = ((records["kind"] & MORE) == 0).astype(np.int64)
        lengths = records["length"].astype(np.int64) + last
        # Short rows cut documents into many segments; a piece makes at most about this many.
        most = max(1, ctx.memory // 16 // CUT.itemsize)
        bounds = np.cumsum(lengths // sequence.seq_len + 2)
        start = 0
        while start < len(records):
            base = int(bounds[start - 1]) if start else 0
            stop = max(start + 1, int(np.searchsorted(bounds, base + most, side="right")))
            piece = lengths[start:stop]
            segments, overlap, left = concatenate(piece, at, sequence.seq_len, spec["rows"])
            segments.row[:] += spec["row"]
            inner = (records["kind"][start:stop] & INNER) != 0
            joined = inner[segments.document] & (segments.start > 0)
            yield records[start:stop], segments, overlap, left, last[start:stop], 0, joined
            at += int(piece.sum())
            start = stop


def documents_of(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """bool[n], which files are the last of their training document, and int64[documents], the first of each."""
    last = (records["kind"] & MORE) == 0
    return last, np.flatnonzero(np.append(True, last[:-1]))


def left_out(fitted: Segments, first: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Tokens of each file that are in no row: int64[files].

    Args:
        fitted: segments by training document, which lack nothing but ends of documents.
        first: int64[documents], the first file of each.
        lengths: int64[files], their tokens.
    """
    kept = np.zeros(len(first), dtype=np.int64)
    np.maximum.at(kept, fitted.document, fitted.offset.astype(np.int64) + fitted.length)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    files = np.diff(np.append(first, len(lengths)))
    until = np.repeat(starts[first] + kept, files)
    return np.asarray(np.maximum(0, ends - np.maximum(starts, until)))


def _streamed(sequence: SequenceParameters, ctx: TaskContext, spec: dict[str, Any]) -> Iterator[np.ndarray]:
    """The records of a block to concatenate; in pieces of a fixed size where their order within one is changed."""
    if sequence.section.pack.prefer == "long":
        return whole_documents(ctx, spec) if sequence.groups else in_pieces(ctx, spec, FIT_BLOCK)
    return joined_records(ctx, spec) if sequence.groups else in_pieces(ctx, spec, None)


def joined_records(ctx: TaskContext, spec: dict[str, Any]) -> Iterator[np.ndarray]:
    """The records of a block with the files of groups joined, in document order, in pieces that fit the budget."""
    most = max(1 << 12, ctx.memory // 16 // SAMPLED.itemsize)
    with open(ctx.scratch("join", join.file_name(spec["block"])), "rb") as file:
        while len(records := np.fromfile(file, dtype=SAMPLED, count=most)):
            yield records


def whole_documents(ctx: TaskContext, spec: dict[str, Any]) -> Iterator[np.ndarray]:
    """The same in pieces of :data:`FIT_BLOCK` records, and as many more as a piece's last training document has."""
    held = np.empty(0, dtype=SAMPLED)
    for records in joined_records(ctx, spec):
        held = np.concatenate([held, records])
        while True:
            ends = np.flatnonzero((held["kind"][FIT_BLOCK - 1 :] & MORE) == 0)
            if not len(ends):
                break
            stop = FIT_BLOCK + int(ends[0])
            yield held[:stop]
            held = held[stop:]
    if len(held):
        yield held


def in_pieces(ctx: TaskContext, spec: dict[str, Any], size: int | None) -> Iterator[np.ndarray]:
    """The records of a block in document order, in pieces of exactly ``size`` (except the last), or as they come."""
    held: list[np.ndarray] = []
    for records in sorted_partition(ctx, "sample", "sampled", spec["block"], SAMPLED, ("key", "row", "epoch")):
        if size is None:
            yield records
            continue
        held.append(records)
        while sum(map(len, held)) >= size:
            joined = np.concatenate(held)
            yield joined[:size]
            held = [joined[size:]]
    if held and len(held[-1]):
        yield np.concatenate(held)
