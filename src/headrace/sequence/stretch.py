"""The part of each row that a process computes where several share the row (sequence parallelism)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Stretch:
    """Some of the equal pieces into which rows are cut. Where they do not come out even, padding follows the row.

    Attributes:
        parts: the numbers of the pieces, ascending.
        pieces: of how many.
    """

    parts: tuple[int, ...] = (0,)
    pieces: int = 1

    @property
    def whole(self) -> bool:
        """Whether this is all of the row."""
        return self.pieces == 1

    def length(self, length: int) -> int:
        """The number of positions of this part of rows of so many, padding included."""
        return len(self.parts) * -(-length // self.pieces)

    def padded(self, rows: np.ndarray) -> np.ndarray:
        """[B, L] with zeros behind, so that L can be divided."""
        extra = -rows.shape[1] % self.pieces
        return np.pad(rows, ((0, 0), (0, extra))) if extra else rows

    def cut(self, rows: np.ndarray) -> np.ndarray:
        """This part [B, n] of rows [B, L]; padding is zeros."""
        if self.whole:
            return rows
        return self.padded(rows).reshape(len(rows), self.pieces, -1)[:, self.parts].reshape(len(rows), -1)

    def places(self, length: int) -> np.ndarray:
        """int64 [n], the position in the row of each of this part's; from ``length`` on it is padding."""
        return self.cut(np.arange(length + -length % self.pieces)[None])[0]


WHOLE = Stretch()
