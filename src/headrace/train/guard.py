"""Steps whose loss or gradient is not finite, or far from those before: skipped, rolled back, or the end of the run.

As in OLMo-core's ``SkipStepAdamW``, a step is outlying if its loss or gradient norm lies more than ``deviations``
standard deviations above the mean of the last ``window`` accepted steps. Here the rows and sources of each such step
are recorded too. The window is part of a checkpoint's state, so a resumed run judges as an unbroken one.
"""

from __future__ import annotations

import math
import os
import statistics
from collections import deque
from pathlib import Path
from typing import Any

import orjson

from headrace.flow.storage import replacing
from headrace.recipe.training import GuardSection

FILE = "spikes.jsonl"
FEWEST = 16  # accepted steps before a deviation means anything


class Guard:
    """Judges steps.

    Args:
        section: the recipe's section.
        state: from :meth:`state`, to continue.
    """

    def __init__(self, section: GuardSection, state: dict[str, Any] | None = None) -> None:
        before = state or {"losses": [], "norms": [], "in_a_row": 0}
        self.section = section
        self.losses: deque[float] = deque(before["losses"], section.window)
        self.norms: deque[float] = deque(before["norms"], section.window)
        self.in_a_row = int(before["in_a_row"])

    def state(self) -> dict[str, Any]:
        """JSON values."""
        kept = self.section.deviations is not None
        losses, norms = (list(self.losses), list(self.norms)) if kept else ([], [])
        return {"losses": losses, "norms": norms, "in_a_row": self.in_a_row}

    def reason(self, loss: float, norm: float) -> str | None:
        """Why a step must not update the weights; None if it may."""
        reason = self._reason(loss, norm)
        if reason is None:
            self.losses.append(loss)
            self.norms.append(norm)
        self.in_a_row = 0 if reason is None else self.in_a_row + 1
        return reason

    def _reason(self, loss: float, norm: float) -> str | None:
        if not math.isfinite(loss) or not math.isfinite(norm):
            return "not finite"
        if outlying(loss, self.losses, self.section.deviations):
            return "loss"
        if outlying(norm, self.norms, self.section.deviations):
            return "gradient norm"
        return None


def outlying(value: float, before: deque[float], deviations: float | None) -> bool:
    """Whether a value lies too far above the mean of those before it."""
    if deviations is None or len(before) < min(FEWEST, before.maxlen or FEWEST):
        return False
    return value > statistics.fmean(before) + deviations * statistics.pstdev(before)


def record(folder: Path, spike: dict[str, Any]) -> None:
    """Append a spike to the stage's record, and flush it to disk."""
    with open(folder / FILE, "ab") as f:
        f.write(orjson.dumps(spike, option=orjson.OPT_APPEND_NEWLINE))
        f.flush()
        os.fsync(f.fileno())


def forget(folder: Path, step: int) -> None:
    """Forget the spikes of steps from ``step`` on, which run again and may come to something else; not those that were
    rolled back, whose rows stay passed over."""
    known = spikes(folder)
    kept = [spike for spike in known if spike["step"] < step or spike["action"] == "rollback"]
    if kept != known:
        with replacing(folder / FILE) as path:
            path.write_bytes(b"".join(orjson.dumps(spike, option=orjson.OPT_APPEND_NEWLINE) for spike in kept))


def spikes(folder: Path) -> list[dict[str, Any]]:
    """The recorded spikes of a trajectory's folder, in the order of their steps, which count from 0 there; each step's
    last record counts."""
    path = folder / FILE
    found: dict[int, dict[str, Any]] = {}
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            spike = orjson.loads(line)
            found[int(spike["step"])] = spike
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):  # cut off by a kill
            continue
    return [found[step] for step in sorted(found)]


def told(folder: Path) -> list[dict[str, Any]]:
    """The same for people and programs, to whom a step has its number in the log, from 1."""
    return [{**spike, "step": int(spike["step"]) + 1} for spike in spikes(folder)]
