"""What a training is, apart from how it is carried out.

A *trajectory* is everything that decides which weights a stage ends with: the content of its sequence, the model, the
optimizer, the schedule, the batch, the precision, the attention, the seed, and where it starts. How it is *executed*
(processes, micro-batch, compilation, logging, evaluation, checkpoints) may change at any step: that rounds sums
differently, no more, and is recorded in spans. Each trajectory has a folder of its own, so that a training never
touches the checkpoints of another::

    RUN/checkpoints/<stage>/<trajectory>/
        trajectory.json     what the trajectory is
        metrics.jsonl       one line a step
        spikes.jsonl        steps that were skipped or rolled back
        *_losses.bin        losses of rows and tokens (:mod:`headrace.train.losses`)
        step-00000100/      a checkpoint

``RUN/checkpoints/<stage>/order.json`` lists a stage's trajectories, the one trained last at the end: the times of files
would not tell after a copy, or with a clock set back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import xxhash

from headrace.flow.storage import SealError, read_sealed, write_sealed
from headrace.recipe.training import EXECUTION, TrainSection

FILE = "trajectory.json"
STATE, MODEL, OPTIMIZER = "state.json", "model", "optimizer"  # of a checkpoint
ORDER = "order.json"


@dataclass(frozen=True)
class Trajectory:
    """A training's description: JSON values, compared by content.

    Attributes:
        model: the model's complete configuration.
        train: the training section, without what only tells how to execute it.
        seed: the recipe's seed.
        steps: the number of the last step.
        sequence: ``{"digest", "rows", "seq_len"}`` of the rows; and ``first``, if those before it are passed over.
        start: digests of what it starts from, by role (``model``, ``optimizer``); empty for new weights.
        after: the trajectory that it continues, with its last step and the rows consumed by then; or None.
    """

    model: Mapping[str, Any]
    train: Mapping[str, Any]
    seed: int
    steps: int
    sequence: Mapping[str, Any]
    start: Mapping[str, str]
    after: Mapping[str, Any] | None = None

    def values(self) -> dict[str, Any]:
        """As JSON."""
        return dict(vars(self))

    @property
    def identity(self) -> str:
        """A hash of all of it, 16 hexadecimal digits."""
        return xxhash.xxh3_64_hexdigest(orjson.dumps(self.values(), option=orjson.OPT_SORT_KEYS))

    @property
    def optimizer(self) -> str:
        """The kind of its optimizer, which decides what state there is."""
        return str(self.train["optimizer"].get("kind", "adamw"))

    @property
    def first_step(self) -> int:
        """Steps done before it begins."""
        return 0 if self.after is None else int(self.after["step"])

    @property
    def first_row(self) -> int:
        """Rows consumed before it begins."""
        return int(self.sequence.get("first", 0) if self.after is None else self.after["rows"])

    def row(self, step: int) -> int:
        """The first row of a step, from 0."""
        return self.first_row + (step - self.first_step) * int(self.train["batch"])

    def passed(self) -> set[int]:
        """The steps, from 0, with a row that the recipe leaves out."""
        found: set[int] = set()
        batch, end = int(self.train["batch"]), self.row(self.steps)
        for first, last in self.train["leave_out"]:
            low, high = max(first, self.first_row) - self.first_row, min(last + 1, end) - self.first_row
            found.update(range(self.first_step + low // batch, self.first_step - -high // batch) if low < high else ())
        return found

    def folder(self, run: Path, stage: str) -> Path:
        """Its folder, which may not exist yet."""
        return stage_folder(run, stage) / self.identity


def decisive(section: TrainSection) -> dict[str, Any]:
    """The keys of a training section that decide which weights come out; the number of steps is told apart."""
    return section.model_dump(mode="json", exclude={*EXECUTION, "steps"})


def sequence_content(fingerprint: Mapping[str, Any] | None, rows: int, seq_len: int, first: int = 0) -> dict[str, Any]:
    """A sequence from a row on, as trajectories know it: by its bytes, whatever its sources are called."""
    digest = None if fingerprint is None else fingerprint["digest"]
    return {"digest": digest, "rows": rows, "seq_len": seq_len, **({"first": first} if first else {})}


def stage_folder(run: Path, stage: str) -> Path:
    """The folder of all trajectories of a stage."""
    return run / "checkpoints" / stage


def begin(folder: Path, trajectory: Trajectory, fingerprint: Mapping[str, Any] | None) -> None:
    """Make the folder of a trajectory, say in it what it is, and that the stage was trained on it last.

    Args:
        folder: the folder.
        trajectory: the trajectory.
        fingerprint: its sequence's, which says more about it than the trajectory may depend on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / FILE).exists():
        write_sealed(folder / FILE, {"trajectory": trajectory.values(), "fingerprint": fingerprint})
    order = _order(folder.parent)
    if order[-1:] != [folder.name]:
        others = [name for name in order if name != folder.name]
        write_sealed(folder.parent / ORDER, {"trajectories": [*others, folder.name]})


def fingerprint_of(folder: Path) -> dict[str, Any] | None:
    """The fingerprint of the sequence that a trajectory began with."""
    try:
        found: dict[str, Any] | None = read_sealed(folder / FILE)["fingerprint"]
    except (FileNotFoundError, SealError):
        return None
    return found


def read_trajectory(folder: Path) -> Trajectory | None:
    """The trajectory of a folder; None if it has none that can be trusted."""
    try:
        return Trajectory(**read_sealed(folder / FILE)["trajectory"])
    except (FileNotFoundError, NotADirectoryError, SealError, TypeError, KeyError):
        return None


def trajectories(run: Path, stage: str) -> list[Path]:
    """The folders of a stage's trajectories, the one trained last at the end."""
    base = stage_folder(run, stage)
    found = {folder.name: folder for folder in sorted(base.glob("*/")) if (folder / FILE).is_file()}
    order = [name for name in _order(base) if name in found]
    return [*(folder for name, folder in found.items() if name not in order), *(found[name] for name in order)]


def _order(base: Path) -> list[str]:
    try:
        return [str(name) for name in read_sealed(base / ORDER)["trajectories"]]
    except (FileNotFoundError, SealError):
        return []


def latest(run: Path, stage: str) -> Path | None:
    """The folder of the trajectory that a stage was trained on last."""
    found = trajectories(run, stage)
    return found[-1] if found else None
