"""Partition, spill, reduce: the external sort under a byte budget that every global operation is made of.

A map task adds fixed-width records, each to a partition, through a :class:`Spill`. Records are held until the budget
is met, then written as one *run*, ordered by partition. A reduce task reads the slices of its partition from every
run of every map task. Nothing but files passes between them, so either side may die and be done again.

Spill file: run after run; a run is, for each partition in order, its records and then its payload bytes.
Index file (NumPy): int64[partitions, runs, 3], of each slice the records, the payload bytes and where it begins; a
reduce task maps it and so reads its own partition's entries only.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import BinaryIO

import numba
import numpy as np

from headrace.flow.external_sort import ExternalSort
from headrace.flow.task import TaskContext

# A run is held twice while it is put in order (records and the ordered copy, and the order itself), and a task has
# other data too, such as a second spill. Larger runs are no quicker: slices of 2048 partitions still have 60 kB each.
SPILL_SHARE = 0.125


class Spill:
    """Writes the records of one map task, each to a partition.

    Args:
        ctx: the map task.
        name: names the exchange within the phase.
        dtype: a structured dtype of fixed width. With ``payload`` it has an integer field ``length``: the number of
            payload bytes that go with the record.
        partitions: how many partitions; depends on content only.
        payload: whether records carry bytes.
    """

    def __init__(self, ctx: TaskContext, name: str, dtype: np.dtype, partitions: int, payload: bool = False) -> None:
        self.dtype, self.partitions, self.payload = np.dtype(dtype), partitions, payload
        self._ctx, self._name = ctx, name
        self._limit = max(1 << 16, int(ctx.memory * SPILL_SHARE))
        self._held: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]] = []
        self._size = 0
        self._runs: list[np.ndarray] = []

    def __enter__(self) -> Spill:
        self._writing = self._ctx.intermediate(f"{self._name}-{self._ctx.task:05d}.spill")
        self._file: BinaryIO = open(self._writing.__enter__().path, "wb")
        return self

    def add(self, partition: np.ndarray, records: np.ndarray, payload: np.ndarray | None = None) -> None:
        """Add records.

        Args:
            partition: integers[n] in [0, partitions).
            records: dtype[n]. The array is kept until it is written: do not reuse it.
            payload: uint8[sum of records["length"]], the records' bytes one after the other.
        """
        if len(records):
            # NumPy sorts 16-bit numbers by radix, ten times as fast as wider ones, and they are held with the records.
            narrow = np.uint16 if self.partitions <= 1 << 16 else np.int64
            self._held.append((np.asarray(partition).astype(narrow), records, payload))
            self._size += records.nbytes + (0 if payload is None else payload.nbytes)
        if self._size >= self._limit:
            self._flush()

    def _flush(self) -> None:
        if not self._held:
            return
        partition = np.concatenate([held[0] for held in self._held])
        records = np.concatenate([held[1] for held in self._held])
        payload = np.concatenate([held[2] for held in self._held]) if self.payload else None
        self._held, self._size = [], 0
        order = np.argsort(partition, kind="stable")
        ordered = records[order]
        begin = self._file.tell()
        index = np.zeros((self.partitions, 3), dtype=np.int64)
        index[:, 0] = np.bincount(partition, minlength=self.partitions)
        ends = np.cumsum(index[:, 0])
        if payload is None:
            ordered.tofile(self._file)
        else:
            lengths = records["length"].astype(np.int64)
            starts = np.cumsum(lengths) - lengths
            moved = gather(payload, starts[order], lengths[order])
            index[:, 1] = np.bincount(partition, weights=lengths, minlength=self.partitions).astype(np.int64)
            byte_ends = np.cumsum(index[:, 1])
            for p in range(self.partitions):
                ordered[ends[p] - index[p, 0] : ends[p]].tofile(self._file)
                moved[byte_ends[p] - index[p, 1] : byte_ends[p]].tofile(self._file)
        sizes = index[:, 0] * self.dtype.itemsize + index[:, 1]
        index[:, 2] = begin + np.cumsum(sizes) - sizes
        self._runs.append(index)

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
            index = np.stack(self._runs, axis=1) if self._runs else np.zeros((self.partitions, 0, 3), dtype=np.int64)
            with self._ctx.intermediate(f"{self._name}-{self._ctx.task:05d}.npy") as out, open(out.path, "wb") as f:
                np.save(f, index)


@numba.njit(cache=True, nogil=True)
def _gather(data: np.ndarray, starts: np.ndarray, lengths: np.ndarray, out: np.ndarray) -> None:
    at = 0
    for i in range(starts.size):
        start = starts[i]
        for k in range(lengths[i]):
            out[at + k] = data[start + k]
        at += lengths[i]


def gather(data: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Stretches of an array, one after another.

    Args:
        data: any 1-D dtype that Numba knows.
        starts: int64[n], where each stretch begins.
        lengths: int64[n].

    Returns:
        The concatenation of ``data[start : start + length]``, of ``data``'s dtype.
    """
    out = np.empty(int(lengths.sum()), dtype=data.dtype)
    _gather(data, starts.astype(np.int64, copy=False), lengths.astype(np.int64, copy=False), out)
    return out


def _index(ctx: TaskContext, phase: str, name: str, task: int) -> np.ndarray:
    """The index of one map task: int64[partitions, runs, 3], mapped."""
    path = ctx.scratch(phase, f"{name}-{task:05d}.npy")
    try:
        return np.load(path, mmap_mode="r")
    except ValueError:  # an array without entries cannot be mapped
        return np.load(path)


def _totals(ctx: TaskContext, phase: str, name: str, column: int) -> np.ndarray:
    sums = [_index(ctx, phase, name, task)[:, :, column].sum(axis=1) for task in range(ctx.tasks(phase))]
    return np.stack(sums).sum(axis=0) if sums else np.zeros(0, dtype=np.int64)


def partition_counts(ctx: TaskContext, phase: str, name: str) -> np.ndarray:
    """Records in each partition of a finished exchange: int64[partitions], or int64[0] if it had no task."""
    return _totals(ctx, phase, name, 0)


def partition_bytes(ctx: TaskContext, phase: str, name: str) -> np.ndarray:
    """Payload bytes in each partition of a finished exchange: int64[partitions], or int64[0] if it had no task."""
    return _totals(ctx, phase, name, 1)


def read_partition(
    ctx: TaskContext, phase: str, name: str, partition: int, dtype: np.dtype, payload: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The records of a partition, run by run in a fixed order (by map task, then by when they were added).

    Yields:
        (records dtype[n], payload uint8[m]); payload is empty without ``payload``. A run's slice is never larger than
        the budget of the map task that wrote it.
    """
    dtype = np.dtype(dtype)
    for task in range(ctx.tasks(phase)):
        slices = np.array(_index(ctx, phase, name, task)[partition])
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
    """The records of a partition in ascending order of the fields, in chunks that respect ``ctx.memory``.

    What fits is sorted in memory and comes as one chunk; what does not by :class:`ExternalSort`. Records with equal
    fields keep the order in which they were read, whatever the budget.
    """
    sort = ExternalSort(ctx.folder / "scratch" / ctx.phase, np.dtype(dtype), by, ctx.memory)
    for records, _ in read_partition(ctx, phase, name, partition, dtype):
        sort.add(records)
    yield from sort.chunks()
