"""Sort more records than fit in memory: sorted runs on disk, cut at common splitters and merged range by range.

The classic external sort, with range bounds taken from a sample of the runs: each range is read whole and sorted in
memory, which is faster than a heap that compares one record at a time.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headrace.flow.sorting import sort_by

# Sorting holds a chunk, a copy of it while it is assembled, and the sort's own working memory.
SORT_SHARE = 0.15

# Runs merged at once. Range bounds come from 2 * runs samples of each run, read one by one.
MOST_RUNS = 256


class ExternalSort:
    """Takes records in any number of pieces and returns them in order.

    Records with equal fields keep the order in which they were added, whatever the budget.

    Args:
        folder: where runs are written, in an unnamed file, so that nothing is left behind; created if missing.
        dtype: a structured dtype.
        by: the fields to sort by, most significant first; they must be integers.
        memory: budget in bytes. Chunks held and returned are at most ``SORT_SHARE`` of it (or 4096 records), unless
            more records than that have equal fields.
        most_runs: runs merged at once.
    """

    def __init__(
        self, folder: Path, dtype: np.dtype, by: tuple[str, ...], memory: int, most_runs: int = MOST_RUNS
    ) -> None:
        self._folder, self._dtype, self._by, self._most_runs = folder, np.dtype(dtype), by, most_runs
        self._limit = max(1 << 12, int(memory * SORT_SHARE) // self._dtype.itemsize)
        self._held: list[npt.NDArray[np.void]] = []
        self._size = 0
        self._runs: list[_Run] = []

    def add(self, records: npt.NDArray[np.void]) -> None:
        """Add records. The array is kept for a while: do not reuse it."""
        for start in range(0, len(records), self._limit):
            piece = records[start : start + self._limit]
            if self._held and self._size + len(piece) > self._limit:
                self._flush()
            self._held.append(piece)
            self._size += len(piece)

    def _flush(self) -> None:
        if not self._runs:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed when the sort is forgotten
        records = np.concatenate(self._held)
        self._held, self._size = [], 0
        self._runs.append(_write(self._file.fileno(), [sort_by(records, self._by)], self._dtype))

    def chunks(self) -> Iterator[npt.NDArray[np.void]]:
        """All records in ascending order, in chunks. Can be called once."""
        if not self._held:
            return
        if not self._runs:
            records = np.concatenate(self._held)
            self._held = []
            yield sort_by(records, self._by)
            return
        self._flush()
        while len(self._runs) > self._most_runs:
            groups = [self._runs[i : i + self._most_runs] for i in range(0, len(self._runs), self._most_runs)]
            with self._file:
                merged = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
                self._runs = [_write(merged.fileno(), self._merge(group), self._dtype) for group in groups]
            self._file = merged
        with self._file:
            yield from self._merge(self._runs)

    def _merge(self, runs: list[_Run]) -> Iterator[npt.NDArray[np.void]]:
        """Merge sorted runs range by range.

        Every ``step``-th record of each run is a candidate splitter. Between two chosen splitters there are at most
        about ``limit`` records, unless more than that have equal fields.
        """
        step = max(1, self._limit // (2 * len(runs)))
        candidates = sort_by(np.concatenate([run.every(step) for run in runs]), self._by)
        bounds: list[tuple[int, ...] | None] = [_fields(c, self._by) for c in candidates[len(runs) - 1 :: len(runs)]]
        starts = [0] * len(runs)
        for bound in [*bounds, None]:
            pairs = list(zip(runs, starts, strict=True))
            ends = [run.size if bound is None else run.upper(self._by, bound, start) for run, start in pairs]
            parts = [run.read(start, end) for (run, start), end in zip(pairs, ends, strict=True) if end > start]
            starts = ends
            if parts:
                records = np.concatenate(parts)
                del parts
                yield sort_by(records, self._by)


@dataclass(frozen=True)
class _Run:
    """A sorted run: ``size`` records of a file, starting at byte ``begin``."""

    descriptor: int
    begin: int
    size: int
    dtype: np.dtype

    def read(self, start: int, stop: int) -> npt.NDArray[np.void]:
        records = np.empty(stop - start, dtype=self.dtype)
        into, at = records.view(np.uint8).data, self.begin + start * self.dtype.itemsize
        while len(into):  # one read returns at most 2 GiB
            got = os.preadv(self.descriptor, [into], at)
            if not got:
                raise EOFError(f"a run of the external sort ends at byte {at}")
            into, at = into[got:], at + got
        return records

    def every(self, step: int) -> npt.NDArray[np.void]:
        """Every ``step``-th record."""
        return np.concatenate([self.read(i, i + 1) for i in range(step - 1, self.size, step)] or [self.read(0, 0)])

    def upper(self, by: tuple[str, ...], bound: tuple[int, ...], low: int) -> int:
        """The first index from ``low`` on whose record is greater than ``bound`` in the fields."""
        high = self.size
        while low < high:
            middle = (low + high) // 2
            if _fields(self.read(middle, middle + 1)[0], by) <= bound:
                low = middle + 1
            else:
                high = middle
        return low


def _write(
    descriptor: int, chunks: Iterator[npt.NDArray[np.void]] | list[npt.NDArray[np.void]], dtype: np.dtype
) -> _Run:
    """Append sorted chunks to a file as one run."""
    begin, size = os.lseek(descriptor, 0, os.SEEK_END), 0
    for records in chunks:
        rest = records.view(np.uint8).data
        while len(rest):
            rest = rest[os.write(descriptor, rest) :]
        size += len(records)
    return _Run(descriptor, begin, size, dtype)


def _fields(record: np.void, by: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(int(record[field]) for field in by)
