"""Read documents row group by row group on several threads, in order, for as long as a page may take."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import pyarrow.parquet as pq

from headrace.flow.artifact import Artifact

THREADS = min(4, os.cpu_count() or 1)
AHEAD = 2 * THREADS  # row groups read before their turn: of 8 MB, or one larger document
_POOL = ThreadPoolExecutor(THREADS, "search")

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """A row group of documents.

    Attributes:
        shard, number: where it is.
        start, stop: its rows in the shard.
        base: the global number of the shard's first row.
    """

    shard: int
    number: int
    start: int
    stop: int
    base: int


def groups(documents: Artifact, first: int = 0) -> Iterator[Group]:
    """The row groups of documents, from the one with global row ``first`` on."""
    for shard, entry in enumerate(documents.shards):
        base = int(documents.row_offsets[shard])
        if base + entry["rows"] <= first:
            continue
        with pq.ParquetFile(documents.shard_path(shard), pre_buffer=False) as file:
            sizes = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
        start = 0
        for number, size in enumerate(sizes):
            if base + start + size > first:
                yield Group(shard, number, start, start + size, base)
            start += size


@dataclass
class Scan(Generic[T]):
    """What a scan found, and where it stopped.

    Attributes:
        found: results, in the order of their rows.
        next: the global row to go on from; None at the end.
    """

    found: list[T]
    next: int | None


def each(
    documents: Artifact, work: Callable[[Group], list[tuple[int, T]]], first: int = 0
) -> Iterator[tuple[Group, list[tuple[int, T]]]]:
    """Search row groups on several threads, and give what was found in order.

    Args:
        documents: the documents.
        work: searches a row group: (global row, result) of each document found, in order.
        first: the global row to begin with.
    """
    waiting: deque[tuple[Group, Future[list[tuple[int, T]]]]] = deque()
    left = groups(documents, first)
    try:
        while True:
            while len(waiting) < AHEAD and (group := next(left, None)) is not None:
                waiting.append((group, _POOL.submit(work, group)))
            if not waiting:
                return
            group, future = waiting.popleft()
            yield group, future.result()
    finally:
        for _, future in waiting:
            future.cancel()


def scan(
    documents: Artifact, work: Callable[[Group], list[tuple[int, T]]], first: int, most: int, seconds: float
) -> Scan[T]:
    """Search until there is enough for a page.

    Args:
        documents, work, first: as in :func:`each`.
        most: results to stop after.
        seconds: to stop after, but not before one row group is searched.
    """
    ends = time.monotonic() + seconds
    found: list[T] = []
    for group, results in each(documents, work, first):
        for row, one in results:
            if row >= first:
                if len(found) == most:
                    return Scan(found, row)
                found.append(one)
        at = group.base + group.stop
        if time.monotonic() > ends and at < documents.rows:
            return Scan(found, at)
    return Scan(found, None)
