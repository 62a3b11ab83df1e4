"""A batch of rows: tokens at once, and whatever else a trainer may ask for on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from headrace.errors import UserError
from headrace.sequence.reader import SequenceReader
from headrace.sequence.windows import describe

Described = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Loss, segment ids and positions of a batch."""


class Batch:
    """A rank's share of a batch: B rows of L + 1 tokens.

    Iterating yields the four arrays in the order below.

    Args:
        tokens: [B, L + 1]; inputs are ``tokens[:, :-1]``, targets ``tokens[:, 1:]``.
        loss: bool[B, L], whether the target of each position carries loss.
        segment_ids: int32[B, L], the document of each input within its row, from 1; 0 is padding.
        positions: int32[B, L].
    """

    __slots__ = ("_rest", "sequence", "tokens")

    def __init__(self, tokens: np.ndarray, loss: np.ndarray, segment_ids: np.ndarray, positions: np.ndarray) -> None:
        self.tokens = tokens
        self.sequence: SequenceReader | None = None  # where it was read, in this process
        self._rest: Described | Callable[[], Described] = (loss, segment_ids, positions)

    @classmethod
    def later(cls, tokens: np.ndarray, rest: Callable[[], Described], sequence: SequenceReader) -> Batch:
        """A batch with only its tokens; ``rest`` is called when anything else is asked for."""
        made = cls.__new__(cls)
        made.tokens, made._rest, made.sequence = tokens, rest, sequence
        return made

    def described(self) -> Described:
        """Loss, segment ids and positions, computed by now."""
        rest = self._rest
        if not isinstance(rest, tuple):
            self._rest = rest = rest()
        return rest

    @property
    def loss(self) -> np.ndarray:
        """bool[B, L], whether the target of each position carries loss."""
        return self.described()[0]

    @property
    def segment_ids(self) -> np.ndarray:
        """int32[B, L], the document of each input within its row, from 1; 0 is padding."""
        return self.described()[1]

    @property
    def positions(self) -> np.ndarray:
        """int32[B, L], from 0 through each row or each segment, as the loader was told."""
        return self.described()[2]

    def __iter__(self) -> Iterator[np.ndarray]:
        yield self.tokens
        yield from self.described()

    def _asdict(self) -> dict[str, np.ndarray]:
        """The arrays by name, as in a named tuple."""
        return dict(zip(("tokens", "loss", "segment_ids", "positions"), self, strict=True))

    def _repr_html_(self) -> str:
        from headrace.sequence.notebook import batch_html

        return batch_html(self)

    def __reduce__(self) -> tuple[type[Batch], tuple[np.ndarray, ...]]:
        # Another process does not have these files open.
        return Batch, tuple(self)


def read(sequence: SequenceReader, start: int, stop: int, dtype: np.dtype, restart: bool) -> Batch:
    """Read rows: their tokens now, the rest on demand.

    Args:
        sequence: the opened sequence.
        start: first row.
        stop: the row after the last.
        dtype: dtype of the returned tokens.
        restart: whether positions restart at 0 with each segment rather than count through the row.
    """
    shape = (stop - start, sequence.seq_len)
    tokens = np.empty((shape[0], shape[1] + 1), dtype=dtype)
    sequence.copy(start, stop, tokens)

    def rest() -> Described:
        loss, segments = sequence.targets(start, stop), sequence.segments_in(start, stop)
        if segments is None and restart:
            raise UserError(
                "Positions cannot restart with each document: the files do not tell where documents begin.",
                str(sequence.path),
                'Use positions="row", or files that tell, such as Cerebras HDF5 with five lines a row.',
            )
        if segments is None:  # as far as anyone knows, a row is one piece of text
            return loss, np.ones(shape, np.int32), np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape)
        segment_ids, positions = np.empty(shape, dtype=np.int32), np.empty(shape, dtype=np.int32)
        first, length, kind = (segments.columns[name] for name in ("start", "length", "kind"))
        describe(segments.bounds, first, length, kind, restart, segment_ids, positions, loss)
        return loss, segment_ids, positions

    return Batch.later(tokens, rest, sequence)
