"""The lengths of documents, for stages that take them by length.

    measure  exchange  a shard's documents by length; its groups to their partitions
    whole    exchange  the groups by length (:mod:`headrace.sequence.group_lengths`)

The length of a document is its tokens in the store, without its end; that of a group is the sum of its files, at most
its ``limit``: what joins them, and what fill-in-the-middle adds, is not counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from headrace.errors import UserError
from headrace.flow.task import TaskContext
from headrace.recipe.lengths import bucket_name, lengths_text
from headrace.sequence import group_lengths
from headrace.sequence.corpus import hold
from headrace.sequence.epochs import SourceCount
from headrace.sequence.parameters import SequenceParameters

_BINS = 64  # by the number of bits of a length


def plan(ctx: TaskContext) -> list[dict[str, Any]]:
    """One task per shard."""
    return [{"shard": shard, "size": entry["rows"]} for shard, entry in enumerate(ctx.input("tokens").shards)]


def measure(sequence: SequenceParameters, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
    """Count a shard's documents by length, and tell its groups to their partitions."""
    held = hold(sequence, ctx, spec["shard"], groups_measured=False)
    mine = held.good & (held.shard.split == held.split)
    mine &= np.isin(held.shard.source, [held.sources.index(name) for name in sequence.by_length])
    of_groups = np.flatnonzero(mine & held.grouped)
    if sequence.groups:
        files = held.units[of_groups], held.lengths[of_groups], held.shard.source[of_groups]
        group_lengths.spill(ctx, group_lengths.parts(*files, spec["shard"]))
    alone = mine & ~held.grouped
    source, lengths = held.shard.source[alone].astype(np.int64), held.lengths[alone]
    return _counted(sequence, held.sources, source, lengths, np.ones_like(lengths), lengths)


def whole(sequence: SequenceParameters, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
    """Count the groups of a partition by length."""
    names = ctx.input("tokens").manifest.extra["sources"]
    source, tokens, files = group_lengths.work(ctx, spec)
    return _counted(sequence, names, source, tokens, files, np.minimum(tokens, sequence.limits(names)[source]))


def _counted(
    sequence: SequenceParameters,
    names: list[str],
    source: np.ndarray,
    tokens: np.ndarray,
    files: np.ndarray,
    lengths: np.ndarray,
) -> dict[str, Any]:
    """Sums of training documents by bucket and source.

    Args:
        sequence: the stage's parameters.
        names: the token store's sources.
        source: int64[n], the source of each document.
        tokens: int64[n], its tokens.
        files: int64[n], its files.
        lengths: int64[n], its length.
    """
    buckets, told = {}, {}
    for name in sequence.by_length:
        mine = source == names.index(name)
        has = lengths[mine]
        for bucket in sequence.section.sources[name].buckets:
            inside = within(has, bucket.lengths)
            counts = int(files[mine][inside].sum()), int(tokens[mine][inside].sum())
            buckets[bucket_name(name, bucket.lengths)] = counts
        bins = np.bincount(np.frexp(has.astype(np.float64))[1], minlength=_BINS)
        told[name] = {"bins": bins.tolist(), "longest": int(has.max(initial=0))}
    return {"buckets": buckets, "lengths": told}


def within(lengths: np.ndarray, wanted: tuple[int, int | None] | None) -> np.ndarray:
    """Which lengths are in a range: bool[n]."""
    low, high = wanted or (0, None)
    return (lengths >= low) & (lengths < (np.iinfo(np.int64).max if high is None else high))


def counts_by_length(sequence: SequenceParameters, ctx: TaskContext) -> dict[str, SourceCount]:
    """The size of each bucket before slices, by its name; documents are files, as everywhere.

    Raises:
        UserError: a bucket has no documents.
    """
    results = list(_results(sequence, ctx))
    counts = {}
    for name in sequence.by_length:
        for bucket in sequence.section.sources[name].buckets:
            key = bucket_name(name, bucket.lengths)
            documents, tokens = (sum(result["buckets"][key][i] for result in results) for i in (0, 1))
            if not tokens and bucket.lengths is not None:
                raise UserError(
                    f"Source {name!r} has no documents {lengths_text(bucket.lengths)} for stage {sequence.stage!r}: "
                    f"{_told([result['lengths'][name] for result in results])}.",
                    f"stages.{sequence.stage}.sources.{name}",
                    "Change the lengths, or give a length without documents no amount: `{LENGTH: 0}`.",
                )
            counts[key] = SourceCount(tokens, documents)
    return counts


def _results(sequence: SequenceParameters, ctx: TaskContext) -> Iterator[dict[str, Any]]:
    yield from ctx.results("measure")
    if sequence.groups:
        yield from ctx.results("whole")


def _told(lengths: list[dict[str, Any]]) -> str:
    """Which lengths there are, in words."""
    bins = np.sum([one["bins"] for one in lengths], axis=0)
    if not bins.any():
        return "it has no documents at all"
    parts = [f"{bins[k]:,} of {(1 << k) >> 1:,} to {(1 << k) - 1:,}" for k in np.flatnonzero(bins)]
    return f"by tokens it has {', '.join(parts)}, the longest {max(one['longest'] for one in lengths):,}"
