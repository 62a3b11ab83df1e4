"""The interface of every opened sequence, whatever its file format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from headrace.errors import UserError
from headrace.sequence.windows import PADDING

if TYPE_CHECKING:
    import pyarrow as pa

SEGMENT = np.dtype(
    [
        ("start", "<i4"),
        ("length", "<i4"),
        ("row", "<u8"),
        ("offset", "<i4"),
        ("source", "<u2"),
        ("kind", "u1"),
        ("epoch", "<u2"),
    ]
)
"""A segment: first position in the row, tokens, document row, first token in the transformed document, index of the
source in the sequence's ``sources``, kind (:data:`headrace.sequence.windows.KINDS`), copy number."""

ELSEWHERE = np.uint64(2**64 - 1)
"""The document row of segments whose documents are not those of the run."""


class Segments(NamedTuple):
    """The segments of n rows.

    Attributes:
        bounds: int[n + 1]; row i has entries ``bounds[i]`` to ``bounds[i + 1]`` of the columns. The first bound need
            not be 0.
        columns: the fields of :data:`SEGMENT` by name; if a sequence does not know where its tokens come from, only
            ``start``, ``length`` and ``kind``.
    """

    bounds: np.ndarray
    columns: dict[str, np.ndarray]

    def of(self, row: int) -> np.ndarray:
        """The segments of a row, in order: a structured array of :data:`SEGMENT`, without unknown fields."""
        low, high = self.bounds[row], self.bounds[row + 1]
        known = np.dtype([(name, SEGMENT[name]) for name in SEGMENT.names or () if name in self.columns])
        out = np.empty(high - low, dtype=known)
        for name in known.names or ():
            out[name] = self.columns[name][low:high]
        return out

    def padding(self, seq_len: int) -> np.ndarray:
        """bool[n, L]: the targets that are padding."""
        out = np.zeros((len(self.bounds) - 1, seq_len + 1), dtype=bool)
        low, high = int(self.bounds[0]), int(self.bounds[-1])
        row = np.repeat(np.arange(len(out)), np.diff(self.bounds))
        for s in np.flatnonzero(self.columns["kind"][low:high] == PADDING):
            start = self.columns["start"][low + s]
            out[row[s], start : start + self.columns["length"][low + s]] = True
        return out[:, 1:]

    def records(self) -> np.ndarray:
        """All segments, rows in order: an array of :data:`SEGMENT`, with 0 in fields that are not known."""
        low, high = int(self.bounds[0]), int(self.bounds[-1])
        out = np.zeros(high - low, dtype=SEGMENT)
        for name, column in self.columns.items():
            out[name] = column[low:high]
        return out


class SequenceReader(ABC):
    """A stage's rows in training order.

    A row holds L + 1 tokens: the first L are inputs, the last L their targets.

    Attributes:
        path: the file or folder.
        seq_len: L.
        dtype: of tokens, an unsigned integer type.
        sources: names, by the index used in segments; empty if the files do not tell.
        vocab_size: one more than the largest possible id; None if the files do not tell.
    """

    path: Path
    seq_len: int
    dtype: np.dtype
    sources: list[str]
    vocab_size: int | None

    @abstractmethod
    def __len__(self) -> int:
        """The number of rows."""

    @property
    @abstractmethod
    def fingerprint(self) -> dict[str, Any] | None:
        """What the sequence is: the ``digest`` of its rows, and the fields that people compare when it differs.

        None if the files do not tell.
        """

    @property
    def manifest(self) -> dict[str, Any]:
        """What else its maker recorded, such as ``eod``, ``pad`` and the ``tokenizer``'s fingerprint; empty if the
        files do not tell.
        """
        return {}

    @abstractmethod
    def ranges(self) -> Iterator[tuple[int, int]]:
        """All rows as ranges ``[start, stop)`` that are cheap to read as a whole."""

    @abstractmethod
    def copy(self, start: int, stop: int, out: np.ndarray) -> None:
        """Copy the tokens of rows ``start`` to ``stop`` to ``out``: [stop - start, L + 1], contiguous, of any integer
        type.

        Raises:
            IndexError: there are no such rows.
            UserError: the files cannot be read.
        """

    @abstractmethod
    def targets(self, start: int, stop: int) -> np.ndarray:
        """bool[stop - start, L]: whether each target carries loss; entry i is token i + 1. Where segments are known,
        those of padding have no loss, see :meth:`segments_in`: the mask does not matter there.
        """

    @abstractmethod
    def segments_in(self, start: int, stop: int) -> Segments | None:
        """The segments of rows ``start`` to ``stop``; None if the files do not tell."""

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Tokens of rows ``start`` to ``stop``: [stop - start, L + 1]; may be a view of the file."""
        out = np.empty((self.within(start, stop), self.seq_len + 1), dtype=self.dtype)
        self.copy(start, stop, out)
        return out

    def loss(self, start: int, stop: int) -> np.ndarray:
        """Whether each token of rows ``start`` to ``stop`` carries loss as a target: bool[stop - start, L + 1].

        A row's first token is never a target within the row.
        """
        out = np.zeros((self.within(start, stop), self.seq_len + 1), dtype=bool)
        out[:, 1:] = self.targets(start, stop)
        return out

    def segments(self, row: int) -> np.ndarray | None:
        """The segments of a row, in order: a structured array of :data:`SEGMENT`; None if the files do not tell."""
        found = self.segments_in(row, row + 1)
        return None if found is None else found.of(0)

    def to_arrow(self, start: int = 0, stop: int | None = None) -> pa.Table:
        """Rows ``start`` to ``stop``, or to the last, as a table: ``tokens`` and ``loss``, lists of L + 1, and
        ``segments`` if the files tell. headrace's own sequences are not copied, rows of other formats are.
        """
        import pyarrow as pa

        stop, width = len(self) if stop is None else stop, self.seq_len + 1
        columns = {
            "tokens": pa.FixedSizeListArray.from_arrays(pa.array(self.rows(start, stop).reshape(-1)), width),
            "loss": pa.FixedSizeListArray.from_arrays(pa.array(self.loss(start, stop).reshape(-1)), width),
        }
        segments = self.segments_in(start, stop)
        if segments is not None:
            low, high = int(segments.bounds[0]), int(segments.bounds[-1])
            known = {name: pa.array(segments.columns[name][low:high]) for name in segments.columns}
            values = pa.StructArray.from_arrays(list(known.values()), list(known))
            columns["segments"] = pa.ListArray.from_arrays(pa.array(segments.bounds - low, pa.int32()), values)
        return pa.table(columns)

    def _repr_html_(self) -> str:
        from headrace.sequence.notebook import sequence_html

        return sequence_html(self)

    def verified(self) -> SequenceReader:
        """The same rows, with each file checked against its digest before it is first read.

        Raises:
            UserError: the files have no digests.
        """
        raise UserError(
            "This sequence cannot be verified: its files come without digests.",
            str(self.path),
            "Open it without verify; an export by headrace has digests in its manifest.json.",
        )

    def within(self, start: int, stop: int) -> int:
        """The number of rows from ``start`` to ``stop``.

        Raises:
            IndexError: there are no such rows.
        """
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"rows {start} to {stop} of a sequence of {len(self)} rows")
        return stop - start


def require_known(tokens: np.ndarray, vocab_size: int, path: Path, first: int) -> None:
    """See that a tokenizer knows the ids of rows.

    Args:
        tokens: unsigned [n, k].
        vocab_size: of the tokenizer.
        path: of the sequence.
        first: which row of it is the first of these.

    Raises:
        UserError: it does not.
    """
    if tokens.size and int(tokens.max()) >= vocab_size:
        row, at = np.argwhere(tokens >= vocab_size)[0]
        raise UserError(
            f"Row {first + row} has token id {tokens[row, at]:,}, and the tokenizer has {vocab_size:,} tokens.",
            str(path),
            "Give the tokenizer that the sequence was made with.",
        )
