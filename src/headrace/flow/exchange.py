"""Partition, spill, reduce: the external sort under a byte budget that all global operations are built from.

A map task assigns fixed-width records to partitions through a :class:`Spill`. Records are held until the budget is
reached, then written as one *run*, ordered by partition. A reduce task reads its partition's slice of every run of
every map task. Only files pass between them, so either side may die and run again.

Spill file: the runs one after another; a run has, for each partition in order, its records and then its payload bytes.
Index file, all int64: the numbers of partitions and of runs, then [partitions, runs, 3]: records, payload bytes and
start of each slice. A reduce task reads only its own partition's entries.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import TracebackType
from typing import BinaryIO

import numpy as np

from headrace.flow.external_sort import ExternalSort
from headrace.flow.kernels import kernel
from headrace.flow.slices import copy_slice
from headrace.flow.task import TaskContext

# While a run is put in order it is held twice (the records and the ordered copy), and a task has other data too, such
# as a second spill.
SPILL_SHARE = 0.125

# Runs are only as large as slices of this size require: then what is written in order stays in the L3 cache, and its
# memory is reused for the next run (new pages cost more than the sort: 25 ns per 12-byte record versus 6).
SLICE_BYTES = 1 << 16
LEAST_RUN = 1 << 24


_NONE = np.empty(0, dtype=np.int64)


class Spill:
    """Writes the records of one map task to partitions.

    Args:
        ctx: the map task.
        name: the name of the exchange within the phase.
        dtype: a structured dtype of fixed width. With ``payload`` it has an integer field ``length``, the number of
            payload bytes that belong to the record.
        partitions: the number of partitions; depends on content only.
        payload: whether records carry payload bytes.
    """

    def __init__(self, ctx: TaskContext, name: str, dtype: np.dtype, partitions: int, payload: bool = False) -> None:
        self.dtype, self.partitions, self.payload = np.dtype(dtype), partitions, payload
        self._ctx, self._name = ctx, name
        self._limit = max(1 << 16, min(int(ctx.memory * SPILL_SHARE), max(LEAST_RUN, SLICE_BYTES * partitions)))
        self._held: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]] = []
        self._size = 0
        self._runs: list[np.ndarray] = []
        self._ordered, self._moved = np.empty(0, dtype=self.dtype), np.empty(0, dtype=np.uint8)

    def __enter__(self) -> Spill:
        self._writing = self._ctx.intermediate(f"{self._name}-{self._ctx.task:05d}.spill")
        self._file: BinaryIO = open(self._writing.__enter__().path, "wb")
        return self

    def add(self, partition: np.ndarray, records: np.ndarray, payload: np.ndarray | None = None) -> None:
        """Add records.

        Args:
            partition: integers[n] in [0, partitions).
            records: dtype[n]. The array is kept until it is written: do not reuse it.
            payload: uint8[sum of records["length"]], the records' bytes, concatenated.
        """
        if len(records):
            # These are held along with the records.
            narrow = np.uint16 if self.partitions <= 1 << 16 else np.int64
            self._held.append((np.asarray(partition).astype(narrow), records, payload))
            self._size += records.nbytes + (0 if payload is None else payload.nbytes)
        if self._size >= self._limit:
            self._flush()

    def _flush(self) -> None:
        if not self._held:
            return
        index = np.zeros((self.partitions, 3), dtype=np.int64)
        lengths = [held[1]["length"].astype(np.int64) if self.payload else _NONE for held in self._held]
        for (partition, _, _), long in zip(self._held, lengths, strict=True):
            _count(partition, long, index)
        begin = self._file.tell()
        # What is in order is written from where it lies, unless its slices are so many that copying them is faster.
        few = self._size >= SLICE_BYTES * len(self._held) * np.count_nonzero(index[:, 0])
        if self.payload and few and all((held[0][1:] >= held[0][:-1]).all() for held in self._held):
            self._write_slices(index, lengths)
        else:
            self._write_ordered(index, lengths)
        self._held, self._size = [], 0
        sizes = index[:, 0] * self.dtype.itemsize + index[:, 1]
        index[:, 2] = begin + np.cumsum(sizes) - sizes
        self._runs.append(index)

    def _write_slices(self, index: np.ndarray, lengths: list[np.ndarray]) -> None:
        """Write a run of which each part is in order of partition."""
        edges = np.arange(self.partitions + 1)
        places = [np.searchsorted(held[0], edges) for held in self._held]
        bytes_at = [np.append(0, np.cumsum(long))[at] for long, at in zip(lengths, places, strict=True)]
        for p in np.flatnonzero(index[:, 0]).tolist():
            for (_, records, _), at in zip(self._held, places, strict=True):
                records[at[p] : at[p + 1]].tofile(self._file)
            for (_, _, payload), at in zip(self._held, bytes_at, strict=True):
                if payload is not None:
                    payload[at[p] : at[p + 1]].tofile(self._file)

    def _write_ordered(self, index: np.ndarray, lengths: list[np.ndarray]) -> None:
        """Put a run in order of partition and write it."""
        ends, byte_ends = np.cumsum(index[:, 0]), np.cumsum(index[:, 1])
        at, byte_at = ends - index[:, 0], byte_ends - index[:, 1]
        if ends[-1] > len(self._ordered):
            self._ordered = np.empty(ends[-1], dtype=self.dtype)
        if byte_ends[-1] > len(self._moved):
            self._moved = np.empty(byte_ends[-1], dtype=np.uint8)
        ordered, moved = self._ordered[: ends[-1]], self._moved[: byte_ends[-1]]
        for (partition, records, payload), long in zip(self._held, lengths, strict=True):
            _spread(partition, _words(records), at, _words(ordered))
            if payload is not None:
                _spread_bytes(partition, payload, long, byte_at, moved)
        if not self.payload:
            ordered.tofile(self._file)
            return
        for p in np.flatnonzero(index[:, 0]).tolist():
            ordered[ends[p] - index[p, 0] : ends[p]].tofile(self._file)
            moved[byte_ends[p] - index[p, 1] : byte_ends[p]].tofile(self._file)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            self._file.close()
            self._writing.__exit__(kind, error, trace)
        if kind is None:
            with self._ctx.intermediate(f"{self._name}-{self._ctx.task:05d}.index") as out, open(out.path, "wb") as f:
                np.array([self.partitions, len(self._runs)], dtype=np.int64).tofile(f)
                if self._runs:
                    np.stack(self._runs, axis=1).tofile(f)


def _words(records: np.ndarray) -> np.ndarray:
    """Records as [n, w] of the widest words whose size divides theirs."""
    size = records.dtype.itemsize
    word = next(word for word in (np.uint64, np.uint32, np.uint16, np.uint8) if size % np.dtype(word).itemsize == 0)
    return np.ascontiguousarray(records).view(word).reshape(len(records), size // np.dtype(word).itemsize)


@kernel
def _count(partition: np.ndarray, lengths: np.ndarray, index: np.ndarray) -> None:
    """Add each partition's number of records to column 0 of ``index``, and its payload bytes to column 1."""
    for i in range(len(partition)):
        index[partition[i], 0] += 1
    for i in range(len(lengths)):
        index[partition[i], 1] += lengths[i]


@kernel
def _spread(partition: np.ndarray, words: np.ndarray, at: np.ndarray, out: np.ndarray) -> None:
    """Copy each record to the next position of its partition; ``at`` holds those positions and is updated."""
    width = words.shape[1]
    if width == 2:
        for i in range(len(partition)):
            to = at[partition[i]]
            out[to, 0], out[to, 1] = words[i, 0], words[i, 1]
            at[partition[i]] = to + 1
        return
    if width == 3:
        for i in range(len(partition)):
            to = at[partition[i]]
            out[to, 0], out[to, 1], out[to, 2] = words[i, 0], words[i, 1], words[i, 2]
            at[partition[i]] = to + 1
        return
    for i in range(len(partition)):
        to = at[partition[i]]
        for w in range(width):
            out[to, w] = words[i, w]
        at[partition[i]] = to + 1


@kernel
def _spread_bytes(
    partition: np.ndarray, payload: np.ndarray, lengths: np.ndarray, at: np.ndarray, out: np.ndarray
) -> None:
    """The same for the payload bytes of each record."""
    start = 0
    for i in range(len(partition)):
        to = at[partition[i]]
        copy_slice(payload, start, lengths[i], out, to)
        start += lengths[i]
        at[partition[i]] = to + lengths[i]


def _index(ctx: TaskContext, phase: str, name: str, task: int, partition: int | None = None) -> np.ndarray:
    """The index of one map task, int64[partitions, runs, 3], or one partition's part of it, int64[runs, 3]."""
    with open(ctx.scratch(phase, f"{name}-{task:05d}.index"), "rb", buffering=0) as f:
        partitions, runs = np.fromfile(f, dtype=np.int64, count=2).tolist()
        if partition is None:
            return np.fromfile(f, dtype=np.int64).reshape(partitions, runs, 3)
        f.seek(24 * runs * partition, os.SEEK_CUR)
        return np.fromfile(f, dtype=np.int64, count=3 * runs).reshape(runs, 3)


def _totals(ctx: TaskContext, phase: str, name: str, column: int) -> np.ndarray:
    sums = [_index(ctx, phase, name, task)[:, :, column].sum(axis=1) for task in range(ctx.tasks(phase))]
    return np.stack(sums).sum(axis=0) if sums else np.zeros(0, dtype=np.int64)


def partition_counts(ctx: TaskContext, phase: str, name: str) -> np.ndarray:
    """Records in each partition of a finished exchange: int64[partitions], or int64[0] if it had no tasks."""
    return _totals(ctx, phase, name, 0)


def partition_size(ctx: TaskContext, phase: str, name: str, partition: int) -> int:
    """Records in one partition of a finished exchange."""
    return sum(int(_index(ctx, phase, name, task, partition)[:, 0].sum()) for task in range(ctx.tasks(phase)))


def partition_bytes(ctx: TaskContext, phase: str, name: str) -> np.ndarray:
    """Payload bytes in each partition of a finished exchange: int64[partitions], or int64[0] if it had no tasks."""
    return _totals(ctx, phase, name, 1)


def read_partition(
    ctx: TaskContext, phase: str, name: str, partition: int, dtype: np.dtype, payload: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The records of a partition, run by run in a fixed order: by map task, then in the order they were added.

    Yields:
        (records dtype[n], payload uint8[m]); payload is empty without ``payload``. A slice is never larger than the
        budget of the map task that wrote it.
    """
    dtype = np.dtype(dtype)
    for task in range(ctx.tasks(phase)):
        slices = _index(ctx, phase, name, task, partition)
        if not slices[:, 0].any():
            continue
        with open(ctx.scratch(phase, f"{name}-{task:05d}.spill"), "rb") as f:
            for n, m, start in slices[slices[:, 0] > 0]:
                f.seek(int(start))
                records = np.fromfile(f, dtype=dtype, count=int(n))
                yield records, np.fromfile(f, dtype=np.uint8, count=int(m) if payload else 0)


def sorted_partition(
    ctx: TaskContext, phase: str, name: str, partition: int, dtype: np.dtype, by: tuple[str, ...]
) -> Iterator[np.ndarray]:
    """The records of a partition in ascending order of some fields, in chunks that respect ``ctx.memory``.

    A partition that fits is sorted in memory and comes as one chunk; others go through :class:`ExternalSort`. Records
    with equal fields keep the order in which they were read, whatever the budget.
    """
    sort = ExternalSort(ctx.folder / "scratch" / ctx.phase, np.dtype(dtype), by, ctx.memory)
    for records, _ in read_partition(ctx, phase, name, partition, dtype):
        sort.add(records)
    yield from sort.chunks()
