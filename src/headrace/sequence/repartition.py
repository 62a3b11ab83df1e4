"""Repartition: move each sampled token once, from the store to the partition of its row.

One task per shard of the token store: it reads one shard and writes a slice for each partition.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from headrace.errors import UserError
from headrace.flow.exchange import Spill, partition_counts, read_partition
from headrace.flow.keys import keyed, salt
from headrace.flow.slices import copy
from headrace.flow.task import TaskContext
from headrace.sequence.encoded import EncodedReader
from headrace.sequence.fim import PLAIN
from headrace.sequence.layout import BASE, CUT, INNER, MORE, MOVED, REWRITTEN, total_rows
from headrace.sequence.parameters import SequenceParameters
from headrace.sequence.place import collect
from headrace.sequence.sampling import CHAT
from headrace.tokens.store import TokenShard, open_shard


def plan(sequence: SequenceParameters, ctx: TaskContext) -> list[dict[str, Any]]:
    """One task per shard that contributes tokens."""
    if sequence.split == "train" and not total_rows(ctx.results("pack")):
        raise UserError(
            f"No document of stage {sequence.stage!r} is as long as half of a row of {sequence.seq_len + 1:,} tokens.",
            f"stages.{sequence.stage}.pack.prefer",
            "Shorten sequence_length, join files (`group`), or remove `prefer`.",
        )
    counts = partition_counts(ctx, "pack", "segments")
    shards = ctx.input("tokens").shards
    return [{"shard": int(shard), "size": shards[shard]["bytes"]} for shard in np.flatnonzero(counts)]


def first_rows(ctx: TaskContext, blocks: int) -> np.ndarray:
    """What to add to a block's row numbers, int64[blocks + 1], if blocks count their own rows (best fit)."""
    rows = np.zeros(blocks + 1, dtype=np.int64)
    for result in ctx.results("pack"):
        rows[result["block"] + 1] = result["used"]
    return np.cumsum(rows)


def row_keys(sequence: SequenceParameters, rows: np.ndarray) -> np.ndarray:
    """Keys that define the training order: sorting by them is a uniform shuffle. uint64[n]."""
    return keyed(salt(sequence.draws, "rows", sequence.stage), rows)


def work(sequence: SequenceParameters, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
    """Move the tokens of one shard."""
    tokens = ctx.input("tokens")
    shard = open_shard(tokens, spec["shard"])
    encoded = EncodedReader(ctx, "encode", spec["shard"], shard.tokens.dtype)
    base = first_rows(ctx, sequence.blocks(ctx).count)
    layout = sequence.shards(ctx)
    joints = Joints.of(sequence, ctx)
    with Spill(ctx, "moved", MOVED, layout.partitions, payload=True) as spill:
        for cuts in segments_of(ctx, spec["shard"], shard.tokens.itemsize):
            to = cuts["to"] + base[cuts["block"]].astype(np.uint64)
            partition = layout.shard(row_keys(sequence, to)) // layout.each
            # Sorted by partition, what goes to one partition is contiguous and copied in long slices.
            order = np.argsort(partition, kind="stable")
            cuts, to, partition = cuts[order], to[order], partition[order]
            kind = cuts["kind"]
            stored = ((kind & BASE) == PLAIN) & ((kind & REWRITTEN) == 0)
            for mine in (stored, ~stored & (kind != CHAT), kind == CHAT):
                if mine.any():
                    records, payload = tokens_of(cuts[mine], shard, encoded, joints)
                    records["to"] = to[mine]
                    spill.add(partition[mine], records, payload)
            ctx.progress(rows=len(cuts), bytes=int(cuts["tokens"].sum()) * shard.tokens.itemsize)
    return {}


def segments_of(ctx: TaskContext, shard: int, itemsize: int) -> Iterator[np.ndarray]:
    """The segments of a shard in pieces whose tokens fit the budget."""
    # The payload is held both here and in the spill, with the records.
    most = max(1 << 16, ctx.memory // 16)
    held: list[np.ndarray] = []
    size = 0
    for cuts, _ in read_partition(ctx, "pack", "segments", shard, CUT):
        bounds = np.cumsum(cuts["tokens"].astype(np.int64) * itemsize + CUT.itemsize)
        start = 0
        while start < len(cuts):
            base = int(bounds[start - 1]) if start else 0
            stop = max(start + 1, int(np.searchsorted(bounds, base + most - size, side="right")))
            held.append(cuts[start:stop])
            size += int(bounds[stop - 1]) - base
            start = stop
            if size >= most or start < len(cuts):
                yield np.concatenate(held)
                held, size = [], 0
    if held:
        yield np.concatenate(held)


class Joints(NamedTuple):
    """What follows documents.

    Attributes:
        tokens: the end-of-document token, then of each source what stands between its files.
        starts: int64[2, sources], where that begins for a file as it was, and for a rearranged one.
    """

    tokens: np.ndarray
    starts: np.ndarray

    @staticmethod
    def of(sequence: SequenceParameters, ctx: TaskContext) -> Joints:
        """Those of a stage."""
        extra = ctx.input("tokens").manifest.extra
        names, joiners = extra["sources"], sequence.joiners(ctx)
        tokens = [np.array([sequence.special(ctx)["eod"]])]
        starts = np.zeros((2, len(names)), dtype=np.int64)
        for name, joiner in joiners.items():
            for i, between in enumerate(joiner.between(sequence.engine(ctx))):
                starts[i, names.index(name)] = sum(map(len, tokens))
                tokens.append(between)
        return Joints(np.concatenate(tokens).astype(extra["dtype"]), starts)

    def after(self, cuts: np.ndarray) -> np.ndarray:
        """int64[n]: where the tokens begin that follow the documents of segments."""
        rearranged = ((cuts["kind"] & BASE) != PLAIN).astype(np.int64)
        return np.where(cuts["kind"] & MORE, self.starts[rearranged, cuts["source"]], 0)


def tokens_of(
    cuts: np.ndarray, shard: TokenShard, encoded: EncodedReader, joints: Joints
) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of segments that are all as they are stored, all encoded again, or all conversations.

    Args:
        cuts: CUT[n].
        shard: the token store shard that holds their documents.
        encoded: the documents of that shard that were encoded again.
        joints: what follows documents.

    Returns:
        MOVED[n] without ``to``, and their payload.
    """
    records = np.zeros(len(cuts), dtype=MOVED)
    for name in ("row", "start", "tokens", "offset", "source", "epoch", "kind"):
        records[name] = cuts[name]
    kind = int(cuts["kind"][0])
    if kind & BASE == PLAIN and not kind & REWRITTEN:
        at = np.searchsorted(shard.rows, cuts["row"])
        starts = shard.offsets[at]
        flat = collected(cuts, shard.tokens, starts, shard.offsets[at + 1] - starts, joints)
        records["length"] = cuts["tokens"] * flat.itemsize
        return records, flat.view(np.uint8)
    which = cuts["row"], 0 if kind == CHAT else cuts["epoch"]
    starts, lengths, loss_starts = encoded.find(*which)
    if kind != CHAT:
        lead = np.where(cuts["kind"] & INNER, encoded.leads(*which), 0)
        starts, lengths = starts + lead, lengths - lead
    flat = collected(cuts, encoded.tokens, starts, lengths, joints)
    records["length"] = cuts["tokens"] * flat.itemsize
    if kind != CHAT:
        return records, flat.view(np.uint8)
    loss = collected(cuts, encoded.loss, loss_starts, lengths + 1, joints)
    records["masked"] = 1
    counts = cuts["tokens"].astype(np.int64)
    ends = np.cumsum(counts)
    width = flat.itemsize
    payload = np.empty(len(loss) * (width + 1), dtype=np.uint8)
    copy(flat.view(np.uint8), (ends - counts) * width, counts * width, payload, (ends - counts) * (width + 1))
    copy(loss, ends - counts, counts, payload, (ends - counts) * (width + 1) + counts * width)
    records["length"] += cuts["tokens"].astype(np.uint32)
    return records, payload


def collected(
    cuts: np.ndarray, tokens: np.ndarray, starts: np.ndarray, lengths: np.ndarray, joints: Joints
) -> np.ndarray:
    """The tokens of segments, concatenated, in the dtype of ``tokens``."""
    ends = np.cumsum(cuts["tokens"], dtype=np.int64)
    out = np.empty(int(ends[-1]), dtype=tokens.dtype)
    place = cuts["offset"], cuts["tokens"]
    collect(tokens, starts, lengths, *place, joints.tokens, joints.after(cuts), out, ends - cuts["tokens"])
    return out
