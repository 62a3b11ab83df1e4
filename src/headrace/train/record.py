"""What a training tells while it goes on: a line per step, losses of rows and tokens, and what is measured of the model
in between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from headrace.evaluate.heldout import held_out_loss
from headrace.model.config import flops_per_token
from headrace.train.accelerators import peak_flops
from headrace.train.losses import LossLog
from headrace.train.metrics import Metrics
from headrace.train.observers import Observer, asked
from headrace.train.outcome import Outcome
from headrace.train.parallel import Placed
from headrace.train.world import World

if TYPE_CHECKING:
    from headrace.train.job import Job


class Record:
    """Tells the observers, which only rank 0 has.

    Args:
        job: the stage.
        world: the processes.
    """

    def __init__(self, job: Job, world: World) -> None:
        self.job, self.world, self.section = job, world, job.section
        self.peak = peak_flops(self.section, world.device)
        self._observers: list[Observer] = []
        self._metrics: Metrics | None = None
        self._losses: LossLog | None = None

    @contextmanager
    def open(self, step: int, lengths: dict[str, int]) -> Iterator[Record]:
        """Open the observers for the steps after ``step``; the log is cut off after ``lengths`` and goes on there."""
        job, trajectory = self.job, self.job.trajectory
        if self.world.chief:
            self._metrics = Metrics(job.folder, lengths)
            about = trajectory.identity, trajectory.values(), self.section.log
            self._observers = [self._metrics, *asked(job.run, job.stage, *about, step)]
            self._losses = LossLog(job.folder, self.section.batch, job.sequence.seq_len, lengths)
        try:
            yield self
        finally:
            for observer in self._observers:
                observer.close()
            if self._losses is not None:
                self._losses.close()

    def lengths(self) -> dict[str, int]:
        """How long the logs are, for a checkpoint."""
        if self._metrics is None or self._losses is None:
            return {}
        return {**self._metrics.lengths(), **self._losses.lengths()}

    def norms_due(self, step: int) -> bool:
        """Whether the norms of weights and update are measured at a step, from 1."""
        every = self.section.log_norms_every
        return every is not None and step % every == 0

    def due(self, step: int) -> bool:
        """Whether a step gets a line."""
        return step % self.section.log_every == 0 or step == self.job.trajectory.steps or self.norms_due(step)

    def step(self, step: int, outcome: Outcome, rate: float, seconds: float) -> None:
        """Tell of a step that took so many seconds, with the wait for its rows."""
        self._record(step, outcome)
        if not self.due(step):
            return
        job, tokens = self.job, self.section.batch * self.job.sequence.seq_len
        line = {
            "step": step,
            "learning_rate": rate,
            "tokens": job.trajectory.row(step) * job.sequence.seq_len,
            **outcome.line(job.sequence.sources),
        }
        times = {
            "seconds": round(seconds, 4),
            "tokens_per_second": round(tokens / seconds, 1),
            "data_wait": round(outcome.waited, 6),
            "memory": outcome.memory,
        }
        if self.peak is not None:
            done = tokens / seconds * flops_per_token(job.config, job.sequence.seq_len)
            times |= {"mfu": round(done / (self.peak * self.world.size), 4), "peak_flops": self.peak}
        for observer in self._observers:
            observer.add(line, times)

    def _record(self, step: int, outcome: Outcome) -> None:
        """Keep the losses of a step's rows and tokens, at the steps that the recipe says."""
        every = self.section.record
        if outcome.rows is None or outcome.each is None:
            return
        if every.rows is not None and step % every.rows == 0 and self._losses is not None:
            self._losses.rows(step, outcome.rows)
        if every.tokens is not None and step % every.tokens == 0:
            rows = np.arange(self.section.batch)
            tokens = outcome.each.tokens(rows)
            if self._losses is not None:
                self._losses.tokens(step, self.job.trajectory.row(step - 1) + rows, tokens)

    def spike(self, step: int, outcome: Outcome) -> None:
        """Keep the losses of an outlying step's rows, and of the tokens of those with the highest."""
        most = self.section.record.outlying
        if not most or outcome.rows is None or outcome.each is None:
            return
        rows = outcome.rows.highest(most)
        tokens = outcome.each.tokens(rows)
        if self._losses is not None:
            self._losses.spike(step, outcome.rows, self.job.trajectory.row(step - 1) + rows, tokens)

    def measure(self, step: int, placed: Placed) -> None:
        """Measure held-out loss and infilling, at the steps that the recipe says, and at the last."""
        section, world, rows = self.section, self.world, self.job.held_out
        every = section.held_out.every
        if rows is None or every is None or (step % every and step != self.job.trajectory.steps):
            return
        batch = section.micro_batch or -(-section.batch // world.data_size)
        share = world.data_rank, world.data_size
        about = section.attention, section.held_out.rows, batch, world.device, self.job.sizes, share
        with placed.measuring():
            measured = held_out_loss(placed, rows, *about, world.sum, placed.stretch)
            if self.job.infilling is not None and placed.whole:
                with placed.alone() as model:
                    measured["infilling"] = self.job.infilling(model)
        for observer in self._observers:
            observer.evaluated({"step": step, **measured})
