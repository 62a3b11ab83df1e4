"""How many documents reach a limit, whatever its value: counts by key, gathered a shard at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.view.limits import Limit

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Steps:
    """Documents by key: for any limit, how many reach it, and their tokens.

    Attributes:
        keys: float64[k], distinct, ascending.
        documents: int64[k + 1], documents before each.
        tokens: float64[k + 1], their tokens.
    """

    keys: Floats
    documents: npt.NDArray[np.int64]
    tokens: Floats

    @staticmethod
    def of(keys: Floats, tokens: Floats) -> Steps:
        """From each document's key and tokens."""
        tally = Tally()
        tally.add(keys, tokens)
        return tally.steps()

    def reach(self, limit: Limit, value: float) -> npt.NDArray[np.float64]:
        """(documents, tokens) that pass a limit of this value."""
        at = int(np.searchsorted(self.keys, limit.key(value), side="right" if limit.strict else "left"))
        return np.array([self.documents[-1] - self.documents[at], self.tokens[-1] - self.tokens[at]], dtype=np.float64)


class Tally:
    """Counts documents by key. Memory follows the number of distinct keys, not of documents.

    Attributes:
        documents: how many were added.
    """

    def __init__(self) -> None:
        self.documents = 0
        self._parts: list[tuple[Floats, npt.NDArray[np.int64], Floats]] = []
        self._merged = 0

    def add(self, keys: Floats, tokens: Floats) -> None:
        """Add documents: each one's key and tokens, float64[n]."""
        self.documents += len(keys)
        self._parts.append(_summed(keys, np.ones(len(keys), dtype=np.int64), tokens))
        if sum(len(part[0]) for part in self._parts) > 2 * self._merged + (1 << 16):
            self._merge()

    def _merge(self) -> None:
        self._parts = [_summed(*(np.concatenate(column) for column in zip(*self._parts, strict=True)))]
        self._merged = len(self._parts[0][0])

    def steps(self) -> Steps:
        """What was added."""
        if not self._parts:
            self.add(np.empty(0), np.empty(0))
        self._merge()
        [(keys, documents, tokens)] = self._parts
        return Steps(keys, np.concatenate([[0], np.cumsum(documents)]), np.concatenate([[0.0], np.cumsum(tokens)]))


def _summed(
    keys: Floats, documents: npt.NDArray[np.int64], tokens: Floats
) -> tuple[Floats, npt.NDArray[np.int64], Floats]:
    """Distinct keys, ascending, with the sums of each."""
    distinct, which = np.unique(keys, return_inverse=True)
    counts, sums = np.zeros(len(distinct), dtype=np.int64), np.zeros(len(distinct))
    np.add.at(counts, which, documents)
    np.add.at(sums, which, tokens)
    return distinct, counts, sums
