"""A batch of rows: the tokens at once, and what else a trainer may ask of them when it asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from headrace.sequence.store import Shard
from headrace.sequence.windows import describe, unpack_targets

Described = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Loss, segment ids and positions of a batch."""


class Batch:
    """A rank's share of a batch: B rows of L + 1 tokens.

    Iterating gives the four arrays in the order below.

    Args:
        tokens: [B, L + 1]; inputs are ``tokens[:, :-1]``, targets ``tokens[:, 1:]``.
        loss: bool[B, L], whether the target of each position carries loss.
        segment_ids: int32[B, L], which document of the row each input belongs to, from 1; 0 is padding.
        positions: int32[B, L].
    """

    __slots__ = ("_rest", "tokens")

    def __init__(self, tokens: np.ndarray, loss: np.ndarray, segment_ids: np.ndarray, positions: np.ndarray) -> None:
        self.tokens = tokens
        self._rest: Described | Callable[[], Described] = (loss, segment_ids, positions)

    @classmethod
    def later(cls, tokens: np.ndarray, rest: Callable[[], Described]) -> Batch:
        """A batch of which only the tokens are there; ``rest`` is called when anything else is asked for."""
        made = cls.__new__(cls)
        made.tokens, made._rest = tokens, rest
        return made

    def described(self) -> Described:
        """Loss, segment ids and positions, worked out by now."""
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
        """int32[B, L], which document of the row each input belongs to, from 1; 0 is padding."""
        return self.described()[1]

    @property
    def positions(self) -> np.ndarray:
        """int32[B, L], from 0 through a row or through each segment, as the loader was told."""
        return self.described()[2]

    def __iter__(self) -> Iterator[np.ndarray]:
        yield self.tokens
        yield from self.described()

    def _asdict(self) -> dict[str, np.ndarray]:
        """The arrays by name, as of a named tuple."""
        return dict(zip(("tokens", "loss", "segment_ids", "positions"), self, strict=True))

    def __reduce__(self) -> tuple[type[Batch], tuple[np.ndarray, ...]]:
        # Another process has no such files open.
        return Batch, tuple(self)


def read(spans: list[tuple[Shard, int, int]], seq_len: int, dtype: np.dtype, restart: bool) -> Batch:
    """Read rows.

    Args:
        spans: the shards that hold them, with the first row in each and the one after the last.
        seq_len: L.
        dtype: of the tokens given out.
        restart: whether positions begin again at 0 with each segment, or count through the row.
    """
    rows = sum(b - a for _, a, b in spans)
    tokens = np.empty((rows, seq_len + 1), dtype=dtype)
    done = 0
    for shard, a, b in spans:
        shard.copy(a, b, tokens[done : done + b - a])
        done += b - a

    def rest() -> Described:
        shape = (rows, seq_len)
        out = np.empty(shape, dtype=bool), np.empty(shape, dtype=np.int32), np.empty(shape, dtype=np.int32)
        done = 0
        for shard, a, b in spans:
            loss, segment_ids, positions = (array[done : done + b - a] for array in out)
            unpack_targets(shard.loss_bits, shard.loss_first + a * (seq_len + 1), shard.masked[a:b], loss)
            start, length, kind = (shard.segments[name] for name in ("start", "length", "kind"))
            describe(shard.bounds[a : b + 1], start, length, kind, restart, segment_ids, positions, loss)
            done += b - a
        return out

    return Batch.later(tokens, rest)
