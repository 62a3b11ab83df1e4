"""Weigh: where a weighted source's share ends, to within a document.

A weight is a number of tokens, including ends of documents and what a stage adds. Whole passes are taken while they
fit; of the last pass, documents are taken in sampling order until the share is reached, so a source gets at least its
share and less than one document more.

Each shard's task lists its documents in that order with running totals (:mod:`headrace.flow.running_totals`).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from headrace.errors import UserError
from headrace.flow.running_totals import LAST, reached
from headrace.flow.task import TaskContext
from headrace.recipe.lengths import lengths_text
from headrace.sequence.corpus import ShardDocuments, hold
from headrace.sequence.epochs import MOST_EPOCHS, ResolvedSource
from headrace.sequence.parameters import SequenceParameters
from headrace.sequence.sampling import End, in_slice, sampling_keys


def plan(sequence: SequenceParameters, ctx: TaskContext) -> list[dict[str, Any]]:
    """One task per shard; what cannot be resolved is reported before any work is done."""
    sequence.resolved(ctx)
    return [{"shard": shard, "size": entry["rows"]} for shard, entry in enumerate(ctx.input("tokens").shards)]


def work(sequence: SequenceParameters, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
    """Weigh a shard's documents as stored; a conversation's tokens are known only after encoding."""
    held = hold(sequence, ctx, spec["shard"])
    totals = {}
    for take in sequence.resolved(ctx).sources:
        if take.wanted is not None and take.name not in sequence.chat_sources:
            at = in_slice(sequence, held, take)
            totals[take.key] = [write(sequence, ctx, held, take, 0, at, np.diff(held.shard.offsets)[at])]
        ctx.progress(rows=len(held.shard.rows))
    return {"totals": totals}


def write(
    sequence: SequenceParameters,
    ctx: TaskContext,
    held: ShardDocuments,
    take: ResolvedSource,
    copy: int,
    at: np.ndarray,
    lengths: np.ndarray,
) -> int:
    """Write documents of a copy in sampling order.

    Args:
        sequence: the stage's parameters.
        ctx: the task.
        held: the shard.
        take: the source.
        copy: the copy's number.
        at: int64[n], indices in the shard, ascending as rows are.
        lengths: int64[n], their tokens excluding the ends of documents.

    Returns:
        Their tokens including the ends.
    """
    keys = sampling_keys(sequence, held, at)
    order = np.argsort(keys, kind="stable")
    table = np.empty((3, len(at)), dtype=np.uint64)
    table[0], table[1] = keys[order], held.shard.rows[at][order]
    np.cumsum(lengths[order] + 1, out=table[2])
    with ctx.intermediate(_name(take.key, copy, ctx.task)) as out, open(out.path, "wb") as f:
        np.save(f, table)
    return int(table[2, -1]) if len(at) else 0


def _name(source: str, copy: int, task: int) -> str:
    return f"weighed-{source}-{copy}-{task:05d}.npy"


def end_of(
    sequence: SequenceParameters, ctx: TaskContext, phase: Literal["weigh", "encode"], take: ResolvedSource
) -> End:
    """Where a source ends, from the weights that a phase recorded.

    ``encode`` weighs what fill-in-the-middle changes copy by copy, and there are no more copies than those; for
    everything else one copy was weighed, and all copies are alike.

    Raises:
        UserError: the slice has no documents, or so few that the epochs cannot be counted.
    """
    assert take.wanted is not None
    by_task = [result["totals"][take.key] for result in ctx.results(phase)]
    by_copy = [sum(totals[copy] for totals in by_task) for copy in range(len(by_task[0]))]
    where = f"stages.{sequence.stage}.sources.{take.name}"
    if not by_copy[0]:
        of = "" if take.lengths is None else f" {lengths_text(take.lengths)}"
        raise UserError(f"The slice of source {take.name!r} has no documents{of}.", where, "Widen the slice.")
    copy, left = 0, take.wanted
    if phase == "weigh" or take.name in sequence.chat_sources:
        whole, left = divmod(take.wanted - 1, by_copy[0])
        left += 1
    else:
        while copy < len(by_copy) and left > by_copy[copy]:
            left -= by_copy[copy]
            copy += 1
        whole = copy
        if whole == len(by_copy):
            return End(whole, LAST, LAST)
    if whole >= MOST_EPOCHS:
        raise UserError(
            f"Source {take.name!r} would be repeated {whole + 1} times.", where, "Lower its weight, or widen its slice."
        )
    paths = (ctx.scratch(phase, _name(take.key, copy, task)) for task, t in enumerate(by_task) if t[copy])
    key, row = reached([np.load(path, mmap_mode="r") for path in paths], left)
    return End(whole + 1, key, LAST if take.name in sequence.groups else row)  # groups are taken whole
