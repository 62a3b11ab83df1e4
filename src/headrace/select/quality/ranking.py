"""Rank documents by their scores, best first, and find where a budget ends; shard by shard, in bounded memory.

Each shard's documents are ordered within their group (a language or a source) in one file; where all shards together
reach a budget is found by bisection (:mod:`headrace.flow.running_totals`), and so is a document's rank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from headrace.flow.running_totals import LAST, Table, reached

Group = str | None
"""A language or source; None for documents without one, or for all of them."""

NO_SCORE = np.uint64(1 << 32)


def best_first(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.uint64]:
    """Keys that order documents from the highest score to the lowest, and those without one (NaN) last.

    Args:
        scores: float32[n].

    Returns:
        uint64[n], below 2**32; :data:`NO_SCORE` for NaN. Equal scores, as 0.0 and -0.0, have equal keys.
    """
    scores = np.asarray(scores, dtype=np.float32) + np.float32(0)  # -0.0 becomes 0.0
    bits = scores.view(np.uint32)
    # Ascending as numbers are: negative ones reversed, below the others.
    ascending = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return np.where(np.isnan(scores), NO_SCORE, (~ascending).astype(np.uint64))


def scores_of(keys: npt.NDArray[np.uint64]) -> list[float | None]:
    """The scores of keys of :func:`best_first`, in as few digits as tell them apart; None without one."""
    ascending = ~keys.astype(np.uint32)
    bits = np.where(ascending >> 31, ascending & np.uint32((1 << 31) - 1), ~ascending)
    scores = np.where(keys >= NO_SCORE, np.float32("nan"), bits.view(np.float32))
    found: list[float | None] = orjson.loads(orjson.dumps(scores, option=orjson.OPT_SERIALIZE_NUMPY))
    return found


class Budget(NamedTuple):
    """How much to take from the top: one of these.

    Attributes:
        share: of each group's total.
        amount: of all groups together, each in proportion to its total.
        above: everything with at least this score.
    """

    share: float | None = None
    amount: int | None = None
    above: float | None = None


@dataclass(frozen=True)
class Cut:
    """Where the documents of a group end that are taken.

    Attributes:
        key, row: the last document that is taken; -1 as key if none is.
        documents: those of the group.
        taken: how many of them are taken.
        total: of the group's weights.
        reached: the total of those that are taken.
    """

    key: int
    row: int
    documents: int
    taken: int
    total: int
    reached: int

    @property
    def score(self) -> float | None:
        """The lowest score that is taken."""
        return scores_of(np.array([self.key], dtype=np.uint64))[0] if self.key >= 0 else None

    def takes(self, keys: npt.NDArray[np.uint64], rows: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """Which documents are taken.

        Args:
            keys: uint64[n], of :func:`best_first`.
            rows: uint64[n], their global row numbers.
        """
        if self.key < 0:
            return np.zeros(len(keys), dtype=bool)
        key, row = np.uint64(self.key), np.uint64(self.row)
        return (keys < key) | ((keys == key) & (rows <= row))


def write(
    file: BinaryIO,
    keys: npt.NDArray[np.uint64],
    rows: npt.NDArray[np.uint64],
    weights: npt.NDArray[np.int64],
    groups: pa.Array,
) -> list[list[Any]]:
    """Write a shard's documents in order within their group.

    Args:
        file: receives uint64[3, n]: keys, rows, and totals that run within a group.
        keys: uint64[n], of :func:`best_first`.
        rows: uint64[n], ascending.
        weights: int64[n].
        groups: string[n].

    Returns:
        ``[group, start, stop]`` for each group.
    """
    names = sorted(groups.unique().to_pylist(), key=lambda name: (name is not None, name or ""))
    place = {name: i for i, name in enumerate(names)}
    coded = groups.dictionary_encode()
    known = np.array([place[name] for name in coded.dictionary.to_pylist()] + [0], dtype=np.int64)
    codes = known[coded.indices.fill_null(len(known) - 1).to_numpy(zero_copy_only=False).astype(np.int64)]
    order = np.lexsort((keys, codes))
    table = np.empty((3, len(keys)), dtype=np.uint64)
    table[0], table[1] = keys[order], rows[order]
    edges = np.searchsorted(codes[order], np.arange(len(names) + 1)).tolist()
    for i in range(len(names)):
        inside = slice(edges[i], edges[i + 1])
        table[2, inside] = np.cumsum(weights[order][inside])
    np.save(file, table)
    return [[name, edges[i], edges[i + 1]] for i, name in enumerate(names)]


def open_tables(paths: Sequence[Path], written: Sequence[list[list[Any]]]) -> dict[Group, list[Table]]:
    """The tables of each group, one for each shard, mapped.

    Args:
        paths: the files of :func:`write`, in the order of the shards.
        written: what it returned for each.
    """
    found: dict[Group, list[Table]] = {}
    for shard, (path, groups) in enumerate(zip(paths, written, strict=True)):
        table = np.load(path, mmap_mode="r") if groups else np.empty((3, 0), dtype=np.uint64)
        for name, start, stop in groups:
            one = found.setdefault(name, [])
            one += [table[:, :0]] * (shard - len(one)) + [table[:, start:stop]]
    for tables in found.values():
        tables += [np.empty((3, 0), dtype=np.uint64)] * (len(paths) - len(tables))
    return found


def cuts(tables: Mapping[Group, Sequence[Table]], budget: Budget) -> dict[Group, Cut]:
    """Where each group ends: at the first document with which it reaches its part of the budget."""
    totals = {name: sum(int(table[2, -1]) for table in some if table.shape[1]) for name, some in tables.items()}
    whole = sum(totals.values())
    return {name: _cut(some, totals[name], whole, budget) for name, some in tables.items()}


def nothing(tables: Sequence[Table]) -> Cut:
    """Where a group ends of which nothing is taken."""
    total = sum(int(table[2, -1]) for table in tables if table.shape[1])
    return Cut(-1, 0, sum(table.shape[1] for table in tables), 0, total, 0)


def _cut(tables: Sequence[Table], total: int, whole: int, budget: Budget) -> Cut:
    if not total:
        key, row = int(NO_SCORE), LAST
    elif budget.above is not None:
        limit = int(best_first(np.array([budget.above]))[0])
        key, row = (limit, LAST) if _through(tables, limit, LAST)[0] else (-1, 0)
    else:
        part = budget.share * total if budget.share is not None else (budget.amount or 0) * total / whole
        # Rounded first, so that a tenth of 1000 is not 101.
        wanted = min(total, max(1, math.ceil(round(part, 3))))
        key, row = reached(tables, wanted)
    documents = sum(table.shape[1] for table in tables)
    taken, amount = _through(tables, key, row) if key >= 0 else (0, 0)
    return Cut(key, row, documents, taken, total, amount)


def _through(tables: Sequence[Table], key: int, row: int) -> tuple[int, int]:
    """How many documents there are up to one, and their total."""
    count = total = 0
    for table in tables:
        low, high = (int(np.searchsorted(table[0], np.uint64(key), side=side)) for side in ("left", "right"))
        n = low + int(np.searchsorted(table[1, low:high], np.uint64(row), side="right"))
        count, total = count + n, total + (int(table[2, n - 1]) if n else 0)
    return count, total


def ranks(tables: Sequence[Table], shard: int) -> npt.NDArray[np.int64]:
    """The rank in its group of each document of a shard's table, from 1: int64[n], in the order of the table.

    Args:
        tables: the group's, one for each shard.
        shard: whose.
    """
    mine = tables[shard][0]
    out = np.arange(1, len(mine) + 1, dtype=np.int64)
    for other, table in enumerate(tables):
        if other != shard and table.shape[1]:
            # Rows of earlier shards come before those of this one among equal scores.
            out += np.searchsorted(table[0], mine, side="right" if other < shard else "left")
    return out
