"""A loss curve of characters, for a terminal: Braille dots, two by four in each character."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

COLUMNS, LINES = 66, 8  # at most
AXIS = 8  # characters to the left
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of U+2800, by row and column


@dataclass
class Curve:
    """Mean losses of equal spans of a stage's steps; memory does not grow with the steps.

    Attributes:
        steps: the stage's steps, 1 or more.
        sums, counts: by dot column; steps without a finite loss are not counted.
    """

    steps: int
    sums: list[float] = field(default_factory=lambda: [0.0] * (2 * COLUMNS))
    counts: list[int] = field(default_factory=lambda: [0] * (2 * COLUMNS))

    def add(self, step: int, loss: float | None) -> None:
        """Add a step's loss; steps count from 1."""
        if loss is not None and math.isfinite(loss):
            at = min((step - 1) * 2 * COLUMNS // self.steps, 2 * COLUMNS - 1)
            self.sums[at] += loss
            self.counts[at] += 1

    def lines(self, columns: int = COLUMNS, lines: int = LINES) -> list[str]:
        """The drawing, with its axis at the left; nothing before there are two points.

        Args:
            columns, lines: characters to draw on, besides the axis; at most :data:`COLUMNS`.
        """
        at = np.arange(2 * COLUMNS) * columns // COLUMNS
        sums, counts = (np.bincount(at, each, 2 * columns) for each in (self.sums, self.counts))
        known = {i: sums[i] / counts[i] for i in np.flatnonzero(counts).tolist()}
        if len(known) < 2:
            return []
        low, high = min(known.values()), max(known.values())
        means = np.interp(np.arange(min(known), max(known) + 1), list(known), list(known.values()))
        span, rows = (high - low) or 1.0, 4 * lines
        cells = [[0] * columns for _ in range(lines)]
        before: int | None = None
        for column, mean in enumerate(means.tolist(), min(known)):
            y = round((high - mean) / span * (rows - 1))
            # The line is filled between two neighbours, so that a steep fall is not a gap.
            first = y if before is None else min(before + (y > before) - (y < before), y) if y > before else y
            last = y if before is None or y >= before else before - 1
            for dot in range(min(first, last), max(first, last) + 1):
                cells[dot // 4][column // 2] |= _DOTS[dot % 4][column % 2]
            before = y
        marks = {0: f"{high:.3g}", lines - 1: f"{low:.3g}"}
        return [
            f"{marks.get(i, ''):>6} ┤" + "".join(chr(0x2800 + cell) for cell in row).rstrip("\u2800")
            for i, row in enumerate(cells)
        ]
