"""The rows of a training whose loss was highest, by how far it lay above that of the other rows of its step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from headrace.train import losses
from headrace.train.outcome import finite
from headrace.train.steps import Steps

DEVIATIONS = 6.0  # above the mean of all rows, at which one is outlying, as docs/training.md has it for steps


@dataclass(frozen=True)
class WorstRow:
    """A row.

    Attributes:
        row: its number.
        step: the step that took it.
        loss: the mean loss of its targets in nats; None if it was not finite.
        above: how far it lay above the median of its step; None likewise.
        outlying: whether that is at least :data:`DEVIATIONS` standard deviations above what it is of all rows.
        current: whether it is a row of the sequence as it is now.
    """

    row: int
    step: int
    loss: float | None
    above: float | None
    outlying: bool
    current: bool


@dataclass(frozen=True)
class Worst:
    """Some steps' rows.

    Attributes:
        rows: those with the highest loss, as far above the others, highest first.
        outlying: how many rows are outlying; at least, if all that are listed are.
        recorded: how many rows were recorded.
    """

    rows: list[WorstRow]
    outlying: int
    recorded: int


def worst(steps: Steps, first: int, last: int, most: int) -> Worst:
    """Look through what was recorded of steps ``first`` to ``last``, some at a time.

    Args:
        steps: the training.
        first: the first step.
        last: the last one.
        most: rows to list.
    """
    best: list[tuple[float, int, int, float, bool]] = []
    recorded, count, total, squares = 0, 0, 0.0, 0.0
    for one in steps.legs:
        if one.folder is None:
            continue
        for block in losses.blocks(one.folder, one.batch, max(first, one.first), min(last, one.last)):
            above = _above(block)
            recorded += int((block["targets"] > 0).sum())
            known = above[np.isfinite(above)].astype(np.float64)
            count, total, squares = count + len(known), total + float(known.sum()), squares + float(known @ known)
            flat = np.where(np.isnan(above), -np.inf, above).ravel()
            some = np.argpartition(-flat, min(most, len(flat) - 1))[:most]
            for i in some[flat[some] > -np.inf].tolist():
                step = int(block["step"][i // one.batch])
                row, loss = one.rows(step)[0] + i % one.batch, float(block["loss"].ravel()[i])
                best.append((float(flat[i]), row, step, loss, one.current))
            best = sorted(best, key=lambda found: (-found[0], found[2], found[1]))[:most]
    mean = total / count if count else 0.0
    limit = mean + DEVIATIONS * math.sqrt(max(0.0, squares / count - mean * mean)) if count else 0.0
    rows = [
        WorstRow(row, step, finite(loss), finite(above), above >= limit and above > 0, current)
        for above, row, step, loss, current in best
    ]
    return Worst(rows, sum(row.outlying for row in rows), recorded)


def _above(block: np.ndarray) -> np.ndarray:
    """float32[n, B]: how far each row lies above the median of its step; infinite if its loss is not finite, the
    opposite if the median is not, NaN if it has no targets."""
    loss = np.where(np.isfinite(block["loss"]), block["loss"], np.inf)
    loss = np.where(block["targets"] > 0, loss, np.nan)
    ordered = np.sort(loss, axis=1)  # NaN at the end
    of = np.maximum((block["targets"] > 0).sum(axis=1), 1)
    low, high = ((np.take_along_axis(ordered, at[:, None], axis=1)) for at in ((of - 1) // 2, of // 2))
    with np.errstate(invalid="ignore"):
        found = loss - (low + high) / 2
    return np.where(np.isposinf(loss), np.inf, found)
