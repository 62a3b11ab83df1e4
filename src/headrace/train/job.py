"""A stage to train, and where it starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.model.config import AnyConfig
from headrace.recipe.training import TrainSection
from headrace.sequence.reader import SequenceReader
from headrace.train.trajectory import Trajectory

if TYPE_CHECKING:
    from headrace.model.transformer import Transformer


@dataclass(frozen=True)
class Start:
    """Where a trajectory's first weights are; each a folder of safetensors, or None: drawn, or zeros.

    Attributes:
        model: weights by name.
        optimizer: optimizer state by name.
        totals: tokens and skipped steps so far, if a trajectory is continued.
    """

    model: Path | None = None
    optimizer: Path | None = None
    totals: dict[str, Any] | None = None


@dataclass(frozen=True)
class Job:
    """A stage to train.

    Attributes:
        run: the run folder.
        stage: the stage's name.
        section: its training section.
        config: the model's complete configuration.
        sequence: its rows.
        trajectory: what the training is.
        start: where its first weights are.
        sizes: int64[V], bytes of text per id; None if the tokenizer has no text.
        held_out: rows to measure the model on while it trains.
        chosen: what `long: auto` has decided about ``section``, and why; None where it was not asked.
        infilling: measures how well a model on its device infills; None if nobody asked, or nothing can be infilled.
    """

    run: Path
    stage: str
    section: TrainSection
    config: AnyConfig
    sequence: SequenceReader
    trajectory: Trajectory
    start: Start
    sizes: np.ndarray | None = None
    held_out: SequenceReader | None = None
    infilling: Callable[[Transformer], dict[str, Any] | None] | None = None
    chosen: str | None = None

    @property
    def folder(self) -> Path:
        """Where its log and checkpoints are."""
        return self.trajectory.folder(self.run, self.stage)
