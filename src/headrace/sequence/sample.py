"""Sample: which copies of which documents a stage takes, in which order, and their lengths after transformation.

One task per shard of the token store. Only numbers move on: one record per copy, to the block of its key.
"""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headrace.errors import UserError
from headrace.flow.exchange import Spill
from headrace.flow.keys import keyed, salt
from headrace.flow.notices import Notice
from headrace.flow.task import TaskContext
from headrace.sequence import weigh
from headrace.sequence.corpus import ShardDocuments, hold
from headrace.sequence.encoded import EncodedReader
from headrace.sequence.epochs import ResolvedSource, repeated
from headrace.sequence.fim import PLAIN, PSM, SPM
from headrace.sequence.layout import BASE, GROUPED, SAMPLED
from headrace.sequence.parameters import SequenceParameters
from headrace.sequence.sampling import CHAT, End, changes, in_slice, kinds, sampled


def plan(sequence: SequenceParameters, ctx: TaskContext) -> list[dict[str, Any]]:
    """One task per shard, which is told where weighted sources end."""
    takes = sequence.resolved(ctx).sources
    ends = {
        take.key: weigh.end_of(sequence, ctx, "encode" if changes(sequence, take.name) else "weigh", take)
        for take in takes
        if take.wanted is not None
    }
    if sequence.split == "train":
        passes = (
            (take.name, take.lengths, ends[take.key].copies if take.key in ends else take.epochs) for take in takes
        )
        for text in repeated(sequence.section, passes):
            warnings.warn(text, Notice, stacklevel=2)
    _tell_refused(sequence, ctx)
    shards = ctx.input("tokens").shards
    told = {name: list(end) for name, end in ends.items()}
    return [{"shard": shard, "ends": told, "size": entry["rows"]} for shard, entry in enumerate(shards)]


def _tell_refused(sequence: SequenceParameters, ctx: TaskContext) -> None:
    """Say how many conversations of each source the template refuses.

    Raises:
        UserError: it refuses all of them.
    """
    results = ctx.results("encode") if sequence.chat_sources else []
    first = next((result["first"] for result in results if "first" in result), None)
    if first is None:
        return
    told = f"{first['file']} line {first['line']}: {first['error']}"
    refused = sum((Counter(result.get("refused", {})) for result in results), Counter[str]())
    if not any(result["encoded"] for result in results):
        raise UserError(
            f"The chat template renders none of the stage's conversations. The first: {told}.",
            f"stages.{sequence.stage}.chat",
            "Check the template and the conversations.",
        )
    counts = ", ".join(f"{count:,} of {name}" for name, count in refused.items())
    warnings.warn(
        f"Stage {sequence.stage!r} leaves out conversations that its chat template does not render: {counts}. "
        f"The first: {told}.",
        Notice,
        stacklevel=2,
    )


@dataclass
class Tally:
    """Counts of one source over all its copies.

    Attributes:
        documents: documents in each copy.
        slice: documents in the slice.
        tokens: tokens in the store.
        laid: tokens after fill-in-the-middle and templates, excluding the ends of documents.
        fim_psm: documents in prefix-suffix-middle order.
        fim_spm: documents in suffix-prefix-middle order.
        chat: conversations.
    """

    documents: list[int] = field(default_factory=list)
    slice: int = 0
    tokens: int = 0
    laid: int = 0
    fim_psm: int = 0
    fim_spm: int = 0
    chat: int = 0


def work(sequence: SequenceParameters, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
    """Sample one shard."""
    held = hold(sequence, ctx, spec["shard"])
    encoded = EncodedReader(ctx, "encode", spec["shard"], held.shard.tokens.dtype)
    ends = {name: End(*end) for name, end in spec["ends"].items()}
    blocks = sequence.blocks(ctx)
    sums = np.zeros(blocks.count, dtype=np.int64)
    tallies: dict[str, Tally] = {}
    with Spill(ctx, "sampled", GROUPED if sequence.groups else SAMPLED, blocks.count) as spill:
        for take in sequence.resolved(ctx).sources:
            chat = take.name in sequence.chat_sources
            inside = in_slice(sequence, held, take)
            copies = sampled(sequence, held, take, ends)
            if chat:  # without the conversations that the template refuses
                inside = inside[encoded.has(held.shard.rows[inside])] if take.wanted is not None else inside
                copies = [(copy, at[encoded.has(held.shard.rows[at])]) for copy, at in copies]
            tally = tallies[take.key] = Tally(slice=len(inside))
            for copy, at in copies:
                records = one_copy(sequence, held, encoded, take, at, copy)
                kind = records["kind"] & BASE
                tally.documents.append(len(records))
                tally.tokens += int(np.diff(held.shard.offsets)[at].sum())
                tally.laid += int(records["length"].sum())
                tally.fim_psm += int((kind == PSM).sum())
                tally.fim_spm += int((kind == SPM).sum())
                tally.chat += int((kind == CHAT).sum())
                block = blocks.block(held.sources.index(take.name), records["key"])
                np.add.at(sums, block, records["length"].astype(np.int64) + 1)
                spill.add(block, records)
        ctx.progress(rows=len(held.shard.rows))
    with ctx.intermediate(f"stream-{ctx.task:05d}.npy") as out, open(out.path, "wb") as f:
        np.save(f, sums)
    return {"sources": {name: vars(tally) for name, tally in tallies.items()}}


def one_copy(
    sequence: SequenceParameters,
    held: ShardDocuments,
    encoded: EncodedReader,
    take: ResolvedSource,
    at: np.ndarray,
    copy: int,
) -> np.ndarray:
    """The records of a copy: SAMPLED[n] or GROUPED[n], with the order key and kind drawn for this copy."""
    shard = held.shard
    records = np.zeros(len(at), dtype=GROUPED if sequence.groups else SAMPLED)
    records["key"] = keyed(salt(sequence.draws, "order", sequence.stage, copy), held.units[at])
    records["row"], records["source"], records["epoch"] = shard.rows[at], held.sources.index(take.name), copy
    records["length"] = shard.offsets[at + 1] - shard.offsets[at]
    records["kind"], _ = kinds(sequence, held, take, at, copy)
    changed = np.flatnonzero(records["kind"] != PLAIN)
    if len(changed):
        which = records["row"][changed], 0 if take.name in sequence.chat_sources else copy
        _, records["length"][changed], _ = encoded.find(*which)
        if sequence.groups:
            records["lead"][changed] = encoded.leads(*which)
    if sequence.groups:
        records["group"] = np.where(held.grouped[at], held.units[at, 1], shard.rows[at])
        group = sequence.groups.get(take.name)
        if group is not None:
            shuffled = group.order == "shuffled"
            ranks = (
                keyed(salt(sequence.draws, "files", sequence.stage, copy), held.ids[at]) if shuffled else held.ranks[at]
            )
            records["rank"] = np.where(held.grouped[at], ranks, 0)
    return records
