"""The rows of a Cerebras HDF5 file."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from headrace.errors import UserError
from headrace.flow.notices import Notice
from headrace.formats.files import Facts, RowFile, joined, put_ids
from headrace.formats.hdf5_array import StoredArray
from headrace.formats.hdf5_layout import Layout, refuse
from headrace.formats.placed import open_for
from headrace.sequence.reader import SEGMENT, Segments
from headrace.sequence.windows import PADDING

IDS, MASK, LABELS, SPAN, POSITION = range(5)
PIECE = 1 << 22  # values read at once; a batch of 600 rows of 2048 is one piece, and is expanded once


class SampleFile(RowFile):
    """A file of the "sample" kind, with three lines a row or five.

    Args:
        path: the file.
        facts: of the sequence that it belongs to.
        arrays: where its data lie, and our group's if it is to be trusted.
        rows: how many it has.
    """

    def __init__(self, path: Path, facts: Facts, arrays: Mapping[str, Layout], rows: int) -> None:
        self.path, self.facts, self._rows = path, facts, rows
        self._file = open_for(self, path, buffering=0)
        arrays_ = {name: StoredArray(path, self._file, name, layout) for name, layout in arrays.items()}
        self._data = arrays_.pop("data")
        self._ours = {name.rpartition("/")[2]: array for name, array in arrays_.items()}
        if self._ours and not _ours(self._ours, rows, facts.fields):
            refuse(path, "its group 'headrace' is damaged")
        self._held: tuple[int, int, np.ndarray] | None = None

    def __len__(self) -> int:
        return self._rows

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
        """Rows in pieces: the first row's number and int[n, lines, L]. The last piece is kept for who asks next."""
        held = self._held
        if held is not None and held[0] <= start and stop <= held[1]:
            yield start, held[2][start - held[0] : stop - held[0]]
            return
        size = max(1, PIECE // (self._data.shape[1] * self._data.shape[2]))
        for first in range(start, stop, size):
            last = min(first + size, stop)
            block = self._data.read(first, last)
            self._held = first, last, block
            yield first, block

    def copy(self, start: int, stop: int, out: np.ndarray) -> None:
        """Copy tokens: the inputs and the last label. Other labels that carry loss must be the inputs one further on,
        but for the last of a document where the file knows the documents.
        """
        for first, block in self._pieces(start, stop):
            part = out[first - start : first - start + len(block)]
            put_ids(block[:, IDS], part[:, :-1], self.facts.vocab_size, str(self.path), first)
            put_ids(block[:, LABELS, -1:], part[:, -1:], self.facts.vocab_size, str(self.path), first)
            other = _not_next(block)
            if self._data.shape[1] == 5:
                other &= block[:, POSITION, 1:] != 0
            if other.any():
                row, at = np.argwhere(other)[0]
                raise UserError(
                    f"Row {first + row} has label {block[row, LABELS, at]} at position {at}, its next token is "
                    f"{block[row, IDS, at + 1]}: the labels are not the tokens one further on.",
                    str(self.path),
                    "headrace reads sequences for next-token prediction only.",
                )

    def targets(self, start: int, stop: int) -> np.ndarray:
        """The loss mask. A document's last label is not the next token where the next document follows at once: it is
        left out.

        Raises:
            UserError: the mask is not one of 0 and 1.
        """
        out = np.empty((stop - start, self.facts.seq_len), dtype=bool)
        for first, block in self._pieces(start, stop):
            mask = block[:, MASK]
            if mask.size and (mask.min() < 0 or mask.max() > 1):
                row, at = np.argwhere((mask < 0) | (mask > 1))[0]
                refuse(self.path, f"row {first + row} has {mask[row, at]} at position {at} of its loss mask")
            part = out[first - start : first - start + len(block)]
            part[:] = mask != 0
            other = _not_next(block) if self._data.shape[1] == 5 else None
            if other is not None and other.any():
                part[:, :-1][other] = False
                warnings.warn(
                    f"{self.path.name}: a document's last label is not the next token in its row; such labels carry "
                    "no loss here.",
                    Notice,
                    stacklevel=2,
                )
        return out

    def segments(self, start: int, stop: int) -> Segments | None:
        """From our own group, or from the position ids of a file with five lines a row."""
        if self._ours:
            bounds = self._ours["bounds"].read(start, stop + 1)
            counts = np.diff(bounds)
            if (
                bounds[0] < 0
                or (counts < 0).any()
                or (counts > self.facts.seq_len + 1).any()
                or bounds[-1] > len(self._ours["start"])
            ):
                refuse(self.path, f"its group 'headrace' is damaged at rows {start} to {stop}")
            columns = {n: a.read(int(bounds[0]), int(bounds[-1])) for n, a in self._ours.items() if n != "bounds"}
            return Segments((bounds - bounds[0]).astype(np.int32), columns)
        if self._data.shape[1] < 5:
            return None
        parts = [from_lines(block) for _, block in self._pieces(start, stop)]
        return joined(parts)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def _ours(arrays: Mapping[str, StoredArray], rows: int, known: Sequence[str]) -> bool:
    """Whether our group holds what we write there."""
    expected = {"bounds": np.dtype(np.int64)} | {name: SEGMENT[name] for name in known}
    if {name: array.dtype for name, array in arrays.items() if len(array.shape) == 1} != expected:
        return False
    lengths = {len(array) for name, array in arrays.items() if name != "bounds"}
    return len(arrays["bounds"]) == rows + 1 and len(lengths) == 1


def _not_next(block: np.ndarray) -> np.ndarray:
    """bool[n, L - 1]: the labels that carry loss and are not the inputs one further on."""
    return (block[:, LABELS, :-1] != block[:, IDS, 1:]) & (block[:, MASK, :-1] != 0)


def from_lines(block: np.ndarray) -> Segments:
    """Segments from position ids: one begins wherever the position is not one more than that before.

    Args:
        block: int[n, 5, L]. Positions 0 that attend to nothing and carry no loss are padding at a row's end.
    """
    position = block[:, POSITION]
    n, L = position.shape
    begins = np.ones((n, L), dtype=bool)
    begins[:, 1:] = position[:, 1:] != position[:, :-1] + 1
    unused = (block[:, SPAN] == 0) & (block[:, MASK] == 0) & (position == 0)
    padding = np.logical_and.accumulate(unused[:, ::-1], axis=1)[:, ::-1]
    begins[:, 1:][padding[:, 1:] & padding[:, :-1]] = False
    row, start = np.nonzero(begins)
    bounds = np.searchsorted(row, np.arange(n + 1))
    end = np.append(start[1:], 0)
    end[bounds[1:] - 1] = L + 1  # the last segment has the row's last target too
    kind = np.where(padding[row, start], PADDING, 0).astype(np.uint8)
    length = (end - start).astype(np.int32)
    return Segments(bounds.astype(np.int32), {"start": start.astype(np.int32), "length": length, "kind": kind})


class CorpusFile(RowFile):
    """A file of the "corpus" kind: one line of tokens. Arguments as for :class:`SampleFile`."""

    def __init__(self, path: Path, facts: Facts, arrays: Mapping[str, Layout], rows: int) -> None:
        self.path, self.facts, self._rows = path, facts, rows
        self._file = open_for(self, path, buffering=0)
        self._data = StoredArray(path, self._file, "data", arrays["data"])

    def __len__(self) -> int:
        return self._rows

    def copy(self, start: int, stop: int, out: np.ndarray) -> None:
        """Copy windows that overlap by a token."""
        L = self.facts.seq_len
        size = max(1, PIECE // L)
        for first in range(start, stop, size):
            last = min(first + size, stop)
            windows = np.lib.stride_tricks.sliding_window_view(self._data.read(first * L, last * L + 1), L + 1)[::L]
            put_ids(windows, out[first - start : last - start], self.facts.vocab_size, str(self.path), first)

    def targets(self, start: int, stop: int) -> np.ndarray:
        """Loss everywhere."""
        return np.ones((stop - start, self.facts.seq_len), dtype=bool)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
