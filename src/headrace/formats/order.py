"""Sequences whose rows lie in several folders, such as one for each source: whose row comes where.

Each folder's rows are in the order of the sequence. A file beside the folders has the number of a folder for each row
of the sequence, so that it can be read in its own order again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from headrace.errors import UserError
from headrace.flow.artifact import flaw
from headrace.formats.files import Facts, FileSequence, joined
from headrace.sequence.reader import Segments, SequenceReader
from headrace.sequence.windows import PADDING

DTYPE = np.dtype("<u2")
"""The number of a folder."""

# Rows of each folder are counted before each block: 128 kB of the file are read to find a row.
BLOCK = 1 << 16


class Order:
    """Whose row comes where.

    Args:
        path: the file: :data:`DTYPE`, a number for each row.
        folders: how many there are.

    Raises:
        UserError: the file is missing or names another folder.
    """

    def __init__(self, path: Path, folders: int) -> None:
        self.path = path
        try:
            self._file = np.memmap(path, dtype=DTYPE, mode="r") if path.stat().st_size else np.empty(0, DTYPE)
        except (OSError, ValueError) as error:
            raise UserError(f"The order of the rows cannot be read: {error}", str(path), "Export again.") from None
        counts = [np.zeros(folders, dtype=np.int64)]
        for start in range(0, len(self._file), BLOCK):
            count = np.bincount(self._file[start : start + BLOCK], minlength=folders)
            if len(count) > folders:
                raise UserError(
                    f"The order of the rows names folder {len(count) - 1} of {folders}.", str(path), "Export again."
                )
            counts.append(count)
        self._before = np.cumsum(counts, axis=0)

    def __len__(self) -> int:
        return len(self._file)

    @property
    def counts(self) -> list[int]:
        """How many rows each folder has."""
        return list(map(int, self._before[-1]))

    def split(self, start: int, stop: int) -> Iterator[tuple[int, int, np.ndarray]]:
        """The rows ``start`` to ``stop`` by folder: the folder, the first of its rows, and where its rows go among
        those asked for."""
        block = start // BLOCK
        whose = np.asarray(self._file[block * BLOCK : stop])
        skipped = np.bincount(whose[: start - block * BLOCK], minlength=len(self.counts))
        whose = whose[start - block * BLOCK :]
        for folder in np.unique(whose).tolist():
            yield folder, int(self._before[block, folder] + skipped[folder]), np.flatnonzero(whose == folder)

    def rows(self, folder: int, first: int, last: int) -> np.ndarray:
        """int64[last - first]: which rows of the sequence are rows ``first`` to ``last`` of a folder."""
        before = self._before[:, folder]
        low, high = int(before.searchsorted(first, side="right")) - 1, int(before.searchsorted(last, side="left"))
        found = [
            np.flatnonzero(self._file[block * BLOCK : (block + 1) * BLOCK] == folder) + block * BLOCK
            for block in range(low, high)
        ]
        return np.concatenate([np.empty(0, np.int64), *found])[first - before[low] : last - before[low]]


def folder_of_rows(segments: Segments, folder: Sequence[int]) -> np.ndarray:
    """uint16[n]: the folder of each row.

    Args:
        segments: of n rows.
        folder: of each source.

    Raises:
        ValueError: a row has sources of several folders; its argument is the row.
    """
    low, high = int(segments.bounds[0]), int(segments.bounds[-1])
    row = np.repeat(np.arange(len(segments.bounds) - 1), np.diff(segments.bounds))
    real = segments.columns["kind"][low:high] != PADDING
    row, number = row[real], np.array(folder, dtype=DTYPE)[segments.columns["source"][low:high][real]]
    least = np.full(len(segments.bounds) - 1, np.iinfo(DTYPE).max, dtype=DTYPE)
    most = np.zeros_like(least)
    np.minimum.at(least, row, number)
    np.maximum.at(most, row, number)
    if (least != most).any():
        raise ValueError(int(np.argmax(least != most)))
    return least


class OrderedFiles(FileSequence):
    """A sequence in files of several folders, read in its own order.

    Attributes:
        order: whose row comes where. The files are those of the first folder, then those of the second, ...
    """

    def __init__(self, *arguments: Any, order: Order, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.order = order
        self._bases = np.cumsum([0, *order.counts])
        if len(self) != len(order):
            raise UserError(
                f"The order of the rows has {len(order):,}, the files have {len(self):,}.",
                str(order.path),
                "Export again.",
            )

    def _like(self, facts: Facts, verify: bool) -> FileSequence:
        return OrderedFiles(self.path, self.files, self._open, facts, self._again, verify, order=self.order)

    @cached_property
    def _checked(self) -> bool:
        """Whether the order is what was written, if that is to be checked."""
        entry = self.facts.entries.get(self._name(self.order.path)) if self._verify else None
        wrong = None if entry is None else flaw(self.order.path, entry)
        if wrong is not None:
            raise UserError(
                f"The order of the rows is damaged: {self.order.path.name} {wrong}.",
                str(self.order.path),
                "Copy or export it again.",
            )
        return True

    def _by_folder(self, start: int, stop: int) -> Iterator[tuple[int, int, np.ndarray]]:
        """The rows of the files that make up rows ``start`` to ``stop``, and where they go."""
        self.within(start, stop)
        assert self._checked
        for folder, first, at in self.order.split(start, stop):
            low = int(self._bases[folder]) + first
            yield low, low + len(at), at

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Ranges as small as a block of :class:`Order`: rows are scattered over all files."""
        for start in range(0, len(self), BLOCK):
            yield start, min(start + BLOCK, len(self))

    def copy(self, start: int, stop: int, out: np.ndarray) -> None:
        """Copy tokens; see :meth:`headrace.sequence.reader.SequenceReader.copy`."""
        for low, high, at in self._by_folder(start, stop):
            held = np.empty((high - low, self.seq_len + 1), dtype=out.dtype)
            super().copy(low, high, held)
            out[at] = held

    def targets(self, start: int, stop: int) -> np.ndarray:
        """bool[stop - start, L]: whether each target carries loss."""
        out = np.empty((self.within(start, stop), self.seq_len), dtype=bool)
        for low, high, at in self._by_folder(start, stop):
            out[at] = super().targets(low, high)
        return out

    def segments_in(self, start: int, stop: int) -> Segments | None:
        """The segments of rows; None if the files do not tell."""
        parts, places = [], []
        for low, high, at in self._by_folder(start, stop):
            segments = super().segments_in(low, high)
            if segments is None:
                return None
            parts.append(segments)
            places.append(at)
        if len(parts) < 2:
            return parts[0] if parts else joined(parts)
        return _taken(joined(parts), np.argsort(np.concatenate(places)))


def _taken(segments: Segments, rows: np.ndarray) -> Segments:
    """The segments of some rows, in another order."""
    first, count = segments.bounds[:-1][rows], np.diff(segments.bounds)[rows]
    bounds = np.concatenate([[0], np.cumsum(count)]).astype(np.int32)
    which = np.arange(bounds[-1]) + np.repeat(first - bounds[:-1], count)
    return Segments(bounds, {name: values[which] for name, values in segments.columns.items()})


class SelectedRows(SequenceReader):
    """Some rows of a sequence, in its order.

    Args:
        sequence: the sequence.
        rows: int64[n], ascending.
    """

    def __init__(self, sequence: SequenceReader, rows: np.ndarray) -> None:
        self.sequence, self._rows = sequence, rows
        self.path, self.seq_len, self.dtype = sequence.path, sequence.seq_len, sequence.dtype
        self.sources, self.vocab_size = sequence.sources, sequence.vocab_size

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def fingerprint(self) -> dict[str, Any] | None:
        """None: these rows are not the sequence."""
        return None

    @property
    def manifest(self) -> dict[str, Any]:
        """What the sequence's maker recorded."""
        return self.sequence.manifest

    def ranges(self) -> Iterator[tuple[int, int]]:
        """All rows."""
        yield 0, len(self)

    def _runs(self, start: int, stop: int) -> Iterator[tuple[int, int, slice]]:
        """Rows of the sequence that follow one another: the first, the one after the last, and where they go."""
        self.within(start, stop)
        rows = self._rows[start:stop]
        ends = np.flatnonzero(np.diff(rows) != 1) + 1
        for a, b in zip([0, *ends.tolist()], [*ends.tolist(), len(rows)], strict=True):
            if a < b:
                yield int(rows[a]), int(rows[b - 1]) + 1, slice(a, b)

    def copy(self, start: int, stop: int, out: np.ndarray) -> None:
        """Copy tokens; see :meth:`headrace.sequence.reader.SequenceReader.copy`."""
        for low, high, at in self._runs(start, stop):
            self.sequence.copy(low, high, out[at])

    def targets(self, start: int, stop: int) -> np.ndarray:
        """bool[stop - start, L]: whether each target carries loss."""
        out = np.empty((self.within(start, stop), self.seq_len), dtype=bool)
        for low, high, at in self._runs(start, stop):
            out[at] = self.sequence.targets(low, high)
        return out

    def segments_in(self, start: int, stop: int) -> Segments | None:
        """The segments of rows."""
        parts = []
        for low, high, _ in self._runs(start, stop):
            segments = self.sequence.segments_in(low, high)
            if segments is None:
                return None
            parts.append(segments)
        return joined(parts)
