"""Which rows each step of a stage's training took, and which step took or will take a row, across edits of the recipe.

Steps are numbered as the training's log numbers them, from 1.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from headrace.flow.artifact import Artifact
from headrace.flow.storage import SealError, read_sealed
from headrace.train import guard, losses, metrics
from headrace.train.losses import RowLosses
from headrace.train.outcome import finite
from headrace.train.trajectory import STATE, Trajectory, read_trajectory, stage_folder

Fate = Literal["trained", "skipped", "left_out", "left", "unused"]
"""What became of a step or a row: trained on; skipped, because the step was outlying; left out by the recipe; still to
come; in no step: after the last whole batch or step, or before the first row."""


@dataclass(frozen=True)
class Leg:
    """Consecutive steps of one trajectory.

    Attributes:
        trajectory: its identity; None of a stage that nobody trained.
        folder: where its log lies; None likewise.
        first: its first step.
        last: its last step, done or to come.
        row: the first row of its first step.
        batch: rows of a step.
        seq_len: targets of a row.
        current: whether these are rows of the sequence as it is now; after an edit, the steps before it may have taken
            rows of a sequence that is no more.
        left_out: the steps with a row that the recipe leaves out.
    """

    trajectory: str | None
    folder: Path | None
    first: int
    last: int
    row: int
    batch: int
    seq_len: int
    current: bool = True
    left_out: frozenset[int] = frozenset()

    def rows(self, step: int) -> tuple[int, int]:
        """The rows ``[start, stop)`` of a step."""
        start = self.row + (step - self.first) * self.batch
        return start, start + self.batch

    @cached_property
    def spikes(self) -> dict[int, dict[str, Any]]:
        """The outlying steps, each with its record (:func:`headrace.train.guard.told`)."""
        return {} if self.folder is None else {one["step"]: one for one in guard.told(self.folder)}

    def row_losses(self, step: int) -> RowLosses | None:
        """The losses of a step's rows; None where they were not recorded."""
        return None if self.folder is None else losses.rows_of(self.folder, self.batch, step)

    def token_losses(self, step: int, rows: Collection[int] | None = None) -> dict[int, np.ndarray]:
        """The losses of the tokens of a step's rows, of some that follow one another or of all, by row
        (:func:`headrace.train.losses.tokens_of`); those that were not recorded are left out."""
        return {} if self.folder is None else losses.tokens_of(self.folder, self.seq_len, step, rows)

    def with_tokens(self, step: int) -> set[int]:
        """The rows of a step whose tokens' losses were recorded."""
        return set() if self.folder is None else losses.with_tokens(self.folder, self.seq_len, step)

    def ranks(self, step: int) -> int | None:
        """Among how many ranks a step's rows were shared, as the newest checkpoint tells; None if it is not known."""
        found = [] if self.folder is None else sorted(self.folder.glob("step-*"))
        for path in reversed(found):
            with suppress(OSError, SealError, KeyError):
                for span in read_sealed(path / STATE)["spans"]:
                    if span["start"] < step <= span["until"]:
                        together = int(span["tensor_parallel"]) * int(span.get("sequence_parallel", 1))
                        return int(span["processes"]) // together
                return None
        return None


@dataclass(frozen=True)
class Taken:
    """What became of a row.

    Attributes:
        row: the row.
        step: the step that took or will take it; None of one that is unused.
        fate: what became of it.
    """

    row: int
    step: int | None
    fate: Fate


@dataclass(frozen=True)
class Steps:
    """The steps of a stage, those done and those to come.

    Attributes:
        legs: of each trajectory so far, oldest first; each goes on from the one before.
        done: the last step done.
    """

    legs: tuple[Leg, ...]
    done: int

    @staticmethod
    def of(run: Path, stage: str, digest: str | None, trajectory: Trajectory, model: Artifact | None = None) -> Steps:
        """The steps of a training.

        Args:
            run: the run folder.
            stage: the stage's name.
            digest: of its sequence's rows, as it is now.
            trajectory: the training.
            model: what it made, if it is finished, which has its log where the checkpoints are gone.
        """
        links = chain(run, stage, trajectory)
        legs = []
        for i, (link, folder) in enumerate(links):
            last = link.steps if i == len(links) - 1 else int(links[i + 1][0].after["step"])  # type: ignore[index]
            current = digest is not None and link.sequence["digest"] == digest
            out = frozenset(step + 1 for step in link.passed())
            if not folder.is_dir() and model is not None and model.manifest.extra["trajectory"] == link.identity:
                folder = model.path
            about = link.identity, folder, link.first_step + 1, last, link.first_row
            legs.append(Leg(*about, int(link.train["batch"]), int(link.sequence["seq_len"]), current, out))
        return Steps(tuple(legs), max(_done(one) for one in legs))

    @staticmethod
    def untrained(rows: int, batch: int, seq_len: int) -> Steps:
        """The steps of whoever reads a sequence in batches of so many rows."""
        return Steps((Leg(None, None, 1, rows // batch, 0, batch, seq_len),), 0)

    @property
    def last(self) -> int:
        """The number of the last step."""
        return self.legs[-1].last

    @property
    def first(self) -> int:
        """The number of the first step that is known."""
        return self.legs[0].first

    def at(self, step: int) -> Leg | None:
        """The leg that a step belongs to; None if there is no such step."""
        return next((one for one in self.legs if one.first <= step <= one.last), None)

    def fate(self, step: int) -> Fate:
        """What became of a step that there is."""
        leg = self.at(step)
        if leg is None:
            return "unused"
        if step in leg.left_out:
            return "left_out"
        if step > self.done:
            return "left"
        return "skipped" if step in leg.spikes else "trained"

    def of_rows(self, rows: Iterable[int]) -> list[Taken]:
        """Which step took or will take each of some rows of the sequence as it is now, in their order."""
        return [self.of_row(row) for row in rows]

    def of_row(self, row: int) -> Taken:
        """Which step took or will take a row of the sequence as it is now."""
        for one in self.legs:
            step = one.first + (row - one.row) // one.batch
            if one.current and row >= one.row and step <= one.last:
                return Taken(row, step, self.fate(step))
        return Taken(row, None, "unused")

    def row_loss(self, taken: Taken) -> float | None:
        """The mean loss of a row in nats, as its step recorded it; None where it did not, or it is not finite."""
        leg = None if taken.step is None else self.at(taken.step)
        if leg is None or taken.step is None:
            return None
        found = leg.row_losses(taken.step)
        return None if found is None else finite(float(found.loss[taken.row - leg.rows(taken.step)[0]]))

    def token_losses(self, taken: Taken) -> dict[int, np.ndarray]:
        """The losses of a row's tokens (:func:`headrace.train.losses.tokens_of`), by row; nothing where they were not
        recorded."""
        leg = None if taken.step is None else self.at(taken.step)
        return {} if leg is None or taken.step is None else leg.token_losses(taken.step, [taken.row])

    def log(self, first: int, last: int) -> list[dict[str, Any]]:
        """The lines of the log about steps ``first`` to ``last``, as far as they were logged."""
        found = []
        for one in self.legs:
            if one.folder is not None and one.first <= last and first <= one.last:
                found += metrics.between(one.folder / metrics.FILE, max(first, one.first), min(last, one.last))
        return found


def chain(run: Path, stage: str, trajectory: Trajectory) -> list[tuple[Trajectory, Path]]:
    """The trajectories that lead to one, oldest first, and their folders; those of other runs are not known."""
    links = [(trajectory, trajectory.folder(run, stage))]
    while (after := links[0][0].after) is not None:
        folder = stage_folder(run, stage) / str(after["trajectory"])
        before = read_trajectory(folder)
        if before is None:
            break
        links.insert(0, (before, folder))
    return links


def _done(leg: Leg) -> int:
    """The last step done, by the newest checkpoint and the last line of the log. What a trajectory did beyond the step
    where another went on from it does not count."""
    assert leg.folder is not None
    line = metrics.last(leg.folder / metrics.FILE)
    found = [int(path.name[5:]) for path in leg.folder.glob("step-*") if path.name[5:].isdigit()]
    done = max(leg.first - 1, 0 if line is None else int(line["step"]), *found, 0)
    return min(done, leg.last)
