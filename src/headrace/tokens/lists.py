"""Token lists of a shard's documents: newly encoded and reused ones, merged by row."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from headrace.flow.slices import gather
from headrace.tokens.store import read_shard


class Lists(NamedTuple):
    """Token lists of documents.

    Attributes:
        rows: int64[n], ascending, rows within the documents shard.
        bytes: int64[n], UTF-8 bytes of each text.
        offsets: int64[n + 1] into ``tokens``.
        tokens: uint16 or uint32 [n_tokens].
    """

    rows: np.ndarray
    bytes: np.ndarray
    offsets: np.ndarray
    tokens: np.ndarray

    @staticmethod
    def none(dtype: np.dtype) -> Lists:
        """The lists of no documents."""
        return Lists(_NONE, _NONE, np.zeros(1, dtype=np.int64), np.empty(0, dtype=dtype))

    @staticmethod
    def of_file(path: Path | None) -> Lists:
        """The lists of a token store shard, memory-mapped; none if there is no file."""
        if path is None:
            return Lists.none(np.dtype(np.uint16))
        shard, _ = read_shard(path)
        return Lists(shard.rows.astype(np.int64), shard.bytes, shard.offsets, shard.tokens)

    def among(self, rows: np.ndarray) -> Lists:
        """The lists of some rows, int64[m] ascending; missing rows are left out."""
        return self._take(np.flatnonzero(np.isin(self.rows, rows, assume_unique=True)))

    def merged(self, other: Lists, dtype: np.dtype) -> Lists:
        """Merge with lists of other documents, by row, converting tokens to a dtype."""
        if not len(self.rows) or not len(other.rows):
            only = self if len(self.rows) else other
            return only._replace(tokens=only.tokens.astype(dtype, copy=False))
        lengths = np.concatenate([np.diff(self.offsets), np.diff(other.offsets)])
        both = Lists(
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.bytes, other.bytes]),
            offsets_of(lengths),
            np.concatenate([self.tokens, other.tokens]).astype(dtype, copy=False),
        )
        return both._take(np.argsort(both.rows))

    def _take(self, at: np.ndarray) -> Lists:
        lengths = np.diff(self.offsets)[at]
        return Lists(self.rows[at], self.bytes[at], offsets_of(lengths), gather(self.tokens, self.offsets[at], lengths))


_NONE = np.empty(0, dtype=np.int64)


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Where lists of these lengths start and the last one ends: int64[n + 1]."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
