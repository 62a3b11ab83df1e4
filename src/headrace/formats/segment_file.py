"""headrace's own file of segments, beside files of token ids: a record a segment, rows in order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from headrace.formats.format import BLOCK_TOKENS
from headrace.formats.placed import Bytes, size_of, unreadable
from headrace.sequence.reader import SEGMENT, Segments


class Records:
    """headrace's own file of segments.

    Args:
        path: the file.
        rows: how many rows it tells of.
        width: tokens of a row.
        known: the fields that mean something.

    Raises:
        UserError: it is not there or cut short.
    """

    def __init__(self, path: Path, rows: int, width: int, known: Sequence[str]) -> None:
        self.path, self._rows, self._width, self._known = path, rows, width, known
        self._count, rest = divmod(size_of(path), SEGMENT.itemsize)
        if rest:
            raise unreadable(path, "it ends within a segment")
        self._bytes = Bytes(path)

    def _read(self, first: int, last: int) -> np.ndarray:
        out = np.empty(last - first, dtype=SEGMENT)
        self._bytes.read(out, first * SEGMENT.itemsize)
        return out

    @cached_property
    def _bounds(self) -> np.ndarray:
        """int64[rows + 1]: a row begins with each segment that begins at 0."""
        size = BLOCK_TOKENS // SEGMENT.itemsize
        begins = [
            at + np.flatnonzero(self._read(at, min(at + size, self._count))["start"] == 0)
            for at in range(0, self._count, size)
        ]
        bounds = np.concatenate([*begins, [self._count]]).astype(np.int64)
        if len(bounds) != self._rows + 1:
            raise unreadable(self.path, f"it tells of {len(bounds) - 1:,} rows, there are {self._rows:,}")
        return bounds

    def segments(self, start: int, stop: int) -> Segments:
        """The segments of rows.

        Raises:
            UserError: they do not fill the rows.
        """
        bounds = self._bounds[start : stop + 1]
        records = self._read(int(bounds[0]), int(bounds[-1]))
        bounds = (bounds - bounds[0]).astype(np.int32)
        begin = records["start"].astype(np.int64)
        end = begin + records["length"]
        expected = np.append(0, end[:-1])[: len(records)]
        expected[bounds[:-1]] = 0
        if (begin != expected).any() or (end[bounds[1:] - 1] != self._width).any():
            raise unreadable(self.path, f"the segments of rows {start} to {stop} do not fill them")
        return Segments(bounds, {name: np.ascontiguousarray(records[name]) for name in self._known})

    def close(self) -> None:
        """Let go of the file."""
        self._bytes.close()
