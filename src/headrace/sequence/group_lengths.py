"""How many tokens the files of a group have together, wherever in the token store they lie.

Each shard tells the files and tokens of its groups to the partition of the group, which adds them up and tells the sum
to those shards.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from headrace.flow.exchange import Spill, partition_counts, read_partition
from headrace.flow.task import TaskContext
from headrace.sequence.layout import upper

PART = np.dtype(
    [("high", "<u8"), ("low", "<u8"), ("tokens", "<u8"), ("files", "<u4"), ("shard", "<u4"), ("source", "<u8")]
)
"""What a shard has of a group; the same from its partition to the shard, with the tokens of all shards."""

# Of files: a task holds the groups of one partition, 40 bytes each.
_PARTITION_FILES, _MOST_PARTITIONS = 1 << 20, 1024


def partitions(ctx: TaskContext) -> int:
    """The number of partitions of groups."""
    return min(_MOST_PARTITIONS, max(1, math.ceil(ctx.input("tokens").rows / _PARTITION_FILES)))


def parts(units: np.ndarray, tokens: np.ndarray, source: np.ndarray, shard: int) -> np.ndarray:
    """What a shard has of each group.

    Args:
        units: uint64[n, 2], the groups of its files.
        tokens: int64[n], their lengths.
        source: integers[n]; files of one group have the same.
        shard: its number.

    Returns:
        PART[m], one for each group.
    """
    codes, first = _codes(units[:, 0], units[:, 1])
    out = np.zeros(len(first), dtype=PART)
    out["high"], out["low"], out["source"], out["shard"] = units[first, 0], units[first, 1], source[first], shard
    np.add.at(out["tokens"], codes, tokens.astype(np.uint64))
    np.add.at(out["files"], codes, np.uint32(1))
    return out


def spill(ctx: TaskContext, found: np.ndarray) -> None:
    """Write what a shard has of its groups to their partitions."""
    with Spill(ctx, "parts", PART, partitions(ctx)) as to:
        to.add(upper(found["high"], to.partitions), found)


def plan(ctx: TaskContext) -> list[dict[str, Any]]:
    """One task per partition of groups."""
    counts = partition_counts(ctx, "measure", "parts")
    return [{"partition": int(p), "size": int(counts[p])} for p in np.flatnonzero(counts)]


def work(ctx: TaskContext, spec: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Add up the groups of a partition, and tell the sums to their shards.

    Returns:
        of each group, int64[n]: its source's index, its tokens, its files.
    """
    found = np.concatenate([part for part, _ in read_partition(ctx, "measure", "parts", spec["partition"], PART)])
    codes, first = _codes(found["high"], found["low"])
    tokens, files = np.zeros((2, len(first)), dtype=np.uint64)
    np.add.at(tokens, codes, found["tokens"])
    np.add.at(files, codes, found["files"].astype(np.uint64))
    found["tokens"] = tokens[codes]
    with Spill(ctx, "whole", PART, len(ctx.input("tokens").shards)) as to:
        to.add(found["shard"], found)
    return found["source"][first].astype(np.int64), tokens.astype(np.int64), files.astype(np.int64)


def group_lengths(ctx: TaskContext, shard: int, units: np.ndarray, alone: np.ndarray) -> np.ndarray:
    """The tokens of the groups that a shard's files are in.

    Args:
        ctx: the task.
        shard: the shard's number.
        units: uint64[n, 2], the groups.
        alone: int64[n], what to return for those that nobody added up.

    Returns:
        int64[n].
    """
    told = [np.empty(0, dtype=PART), *(part for part, _ in read_partition(ctx, "whole", "whole", shard, PART))]
    found = np.concatenate(told)
    high, low = np.append(found["high"], units[:, 0]), np.append(found["low"], units[:, 1])
    codes, _ = _codes(high, low)
    tokens = np.full(len(codes), -1, dtype=np.int64)
    tokens[codes[: len(found)]] = found["tokens"].astype(np.int64)
    mine = tokens[codes[len(found) :]]
    return np.where(mine < 0, alone, mine)


def _codes(high: np.ndarray, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A number for each distinct pair, and where each first occurs: int64[n], int64[distinct]."""
    order = np.lexsort((low, high))
    new = np.ones(len(order), dtype=bool)
    new[1:] = (high[order][1:] != high[order][:-1]) | (low[order][1:] != low[order][:-1])
    codes = np.empty(len(order), dtype=np.int64)
    codes[order] = np.cumsum(new) - 1
    return codes, order[new]
