"""The learning rate as a pure function of the step, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math

from headrace.recipe.training import SchedulePiece, ScheduleSection


def learning_rate(schedule: ScheduleSection, peak: float, step: int, steps: int) -> float:
    """The rate of one step.

    All shapes except `pieces` rise linearly during the warmup, so that step 0 already moves and the warmup's last step
    is at the peak, and reach their end at the last step. WSD is from Hu et al., MiniCPM, 2024.

    Args:
        schedule: the stage's schedule.
        peak: the highest rate; `pieces` state their own.
        step: from 0.
        steps: the stage's number of steps.
    """
    if schedule.shape == "pieces":
        return piecewise(schedule.pieces, step)
    warmup = _length(schedule.warmup, steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    low = peak * schedule.end
    if schedule.shape == "constant":
        return peak
    if schedule.shape == "wsd":
        decay = max(1, min(_length(schedule.decay, steps), steps - warmup))
        into = step + 1 - (steps - decay)
        return peak if into <= 0 else peak + (low - peak) * min(1.0, into / decay)
    share = min(1.0, (step + 1 - warmup) / max(1, steps - warmup))
    if schedule.shape == "linear":
        return peak + (low - peak) * share
    return low + (peak - low) * (1 + math.cos(math.pi * share)) / 2


def piecewise(pieces: tuple[SchedulePiece, ...], step: int) -> float:
    """Pieces one after another, like Cerebras' list of schedulers (``lr_scheduler.SequentialLR`` of the Model Zoo).

    Step 0 is at the first `start`; a piece's end is reached at the first step after it; the last end holds.
    """
    for piece in pieces:
        if step < piece.steps:
            return _within(piece, step / piece.steps)
        step -= piece.steps
    return pieces[-1].end


def _within(piece: SchedulePiece, share: float) -> float:
    """The rate where a share of a piece's steps is done."""
    low, high = piece.end, piece.start
    if piece.shape == "exponential":
        return high * (low / high) ** share
    if piece.shape == "cosine":
        return low + (high - low) * (1 + math.cos(math.pi * share)) / 2
    return high + (low - high) * share


def _length(value: float, steps: int) -> int:
    return round(value * steps) if value < 1 else round(value)
