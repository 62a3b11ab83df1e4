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
from headrace.sequence.layout import CUT, SAMPLED
from headrace.sequence.packing import Segments, best_fit, concatenate, rows_of, with_ends
from headrace.sequence.parameters import SequenceParameters

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
        for records, segments, overlap, left, ends, more in packed(sequence, ctx, spec):
            source = records["source"]
            np.add.at(totals["placed"], source[segments.document], segments.length.astype(np.int64))
            for name, values in (("overlap", overlap), ("left", left), ("ends", ends)):
                np.add.at(totals[name], source, values)
            used += more
            out = np.empty(len(segments.row), dtype=CUT)
            for name in ("row", "source", "epoch", "kind"):
                out[name] = records[name][segments.document]
            out["to"], out["start"], out["tokens"] = segments.row, segments.start, segments.length
            out["offset"], out["block"] = segments.offset, spec["block"]
            spill.add(np.searchsorted(first_rows, out["row"].astype(np.int64), side="right") - 1, out)
            ctx.progress(rows=len(records))
    counts = {name: values.tolist() for name, values in totals.items()}
    stop = spec["row"] + spec["rows"]
    return {"block": spec["block"], "used": used, "stop": stop, "whole": spec["whole"], **counts}


Packed = tuple[np.ndarray, Segments, np.ndarray, np.ndarray, np.ndarray, int]


def packed(sequence: SequenceParameters, ctx: TaskContext, spec: dict[str, Any]) -> Iterator[Packed]:
    """The pieces of a block in order.

    Yields:
        records, their segments, and for each record int64[n] tokens in two rows, tokens in none, and tokens that end it
        (1 or 0); and the number of rows used by this piece alone (best fit only).
    """
    if sequence.section.pack.method == "best_fit":
        rows = 0
        for records in in_pieces(ctx, spec, FIT_BLOCK):
            lengths = records["length"].astype(np.int64)
            totals = with_ends(lengths, sequence.seq_len)
            segments, used = best_fit(totals, sequence.seq_len)
            overlap = np.bincount(segments.document, weights=segments.length, minlength=len(records)).astype(np.int64)
            segments.row[:] += rows
            yield records, segments, overlap - totals, np.zeros_like(totals), totals - lengths, used
            rows += used
        return
    at = spec["first"]
    for records in in_pieces(ctx, spec, None):
        lengths = records["length"].astype(np.int64) + 1
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
            yield records[start:stop], segments, overlap, left, np.ones_like(piece), 0
            at += int(piece.sum())
            start = stop


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
