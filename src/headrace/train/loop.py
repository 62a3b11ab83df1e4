"""The training loop: accumulate, clip, update, log, checkpoint; the same from any checkpoint on, on any number of
processes."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from headrace.errors import UserError
from headrace.flow.notices import Notice
from headrace.model.build import build, dtype_of
from headrace.model.micro import micros, passes
from headrace.sequence.batch import Batch
from headrace.sequence.loader import Loader
from headrace.train import checkpoint, guard, losses
from headrace.train.accelerators import peak_memory
from headrace.train.batch_losses import BatchLosses
from headrace.train.checkpoint import Checkpoint, Saver
from headrace.train.guard import Guard
from headrace.train.interruption import Interrupted, Interruption
from headrace.train.job import Job
from headrace.train.losses import RowLosses
from headrace.train.optimizer import Optimizer
from headrace.train.outcome import Outcome, finite
from headrace.train.parallel import Placed, norm
from headrace.train.record import Record
from headrace.train.schedules import learning_rate
from headrace.train.spans import Span, extended
from headrace.train.trajectory import MODEL, OPTIMIZER, begin
from headrace.train.world import World

PREFETCH = 2  # batches read ahead: one in use, one ready


class Trainer:
    """Trains a stage on the processes of a world, from its newest checkpoint if there is one.

    Args:
        job: the stage.
        world: the processes.
    """

    def __init__(self, job: Job, world: World) -> None:
        self.job, self.world, self.section = job, world, job.section
        with torch.device("meta"):
            model = build(job.config, dtype_of(self.section.precision, world.device))
            if self.section.precision == "fp8":
                from headrace.train.float8 import convert

                convert(model, world.device)
        if self.section.precision == "bf16" and model.dtype == torch.float32 and world.chief:
            warnings.warn(
                "This processor cannot multiply bfloat16: `precision: bf16` is computed in float32, which rounds less.",
                Notice,
                stacklevel=2,
            )
        self.placed = Placed(model, self.section, world)
        self.model = model
        self.optimizer = Optimizer(model, self.section.optimizer, self.section.long.offloads_update)
        self.sources = len(job.sequence.sources) + 1
        self.passed = job.trajectory.passed()
        self.record = Record(job, world)
        self.bytes = None if job.sizes is None else torch.from_numpy(job.sizes).double().to(world.device)
        self.waited = 0.0
        self.resumed: Checkpoint | None = None
        self._prepare()

    def train(self, progress: Callable[[int, float], None], heard: Interruption | None = None) -> Checkpoint:
        """Train to the last step.

        Args:
            progress: called in rank 0 after each step with its number, from 1, and its loss in nats per token.
            heard: requests to stop.

        Returns:
            The checkpoint of the last step. Model and optimizer are in that state.

        Raises:
            Interrupted: a process was asked to stop; the checkpoint is written.
            UserError: too many steps in a row were not finite or outlying.
        """
        saver = Saver(self.job.folder, self.world, self.section.keep, self.section.keep_every)
        try:
            while True:
                try:
                    self._steps(saver, progress, heard or Interruption())
                    done = saver.wait() or self.resumed
                    assert done is not None  # there is a last step
                    return done
                except _Rollback:
                    saver.wait()
                    self._prepare()
        finally:
            saver.close()

    # From checkpoints.

    def _prepare(self) -> None:
        """Put model, optimizer and counters into the state of the newest checkpoint, or of the trajectory's start."""
        job, done = self.job, None
        with self.world.first() as first:
            if first:
                begin(job.folder, job.trajectory, job.sequence.fingerprint)
                done = checkpoint.newest(job.folder, job.run)
        done = self.resumed = self.world.told(done)
        self.optimizer.forget()
        if done is not None:
            self._load(done.path / MODEL, done.path / OPTIMIZER)
        elif job.start.model is None:
            self.model.initialise(job.trajectory.seed)
        else:
            self._load(job.start.model, job.start.optimizer)
        self.placed.ready()
        state = {} if done is None else done.state
        fresh = {"tokens": 0, "skipped": 0, "sources": {}}
        self.step = done.step if done is not None else job.trajectory.first_step
        self.totals: dict[str, Any] = dict(state.get("totals") or job.start.totals or fresh)
        self.guard = Guard(self.section.guard, state.get("guard"))
        self.spans = [Span(**span) for span in state.get("spans", ())]
        self.logged = dict(state.get("logged") or {})
        with self.world.first() as first:
            if first:
                guard.forget(job.folder, self.step)
                kept = {spike["step"] + 1 for spike in guard.spikes(job.folder)}
                losses.forget(job.folder, self.section.batch, job.sequence.seq_len, kept)
        self.rolled_back = {spike["step"] for spike in guard.spikes(job.folder) if spike["action"] == "rollback"}

    def _load(self, model: Path, optimizer: Path | None) -> None:
        if (model / "config.json").is_file():
            from headrace.model.huggingface.reading import Stored

            Stored.open(model).load(self.model)
        else:
            checkpoint.read_part(model, self.model.state_dict(), self.world)
        if optimizer is not None:
            checkpoint.read_part(optimizer, self.optimizer.named_state(), self.world)

    def _save(self, saver: Saver, logged: dict[str, int]) -> None:
        state = {
            "step": self.step,
            "trajectory": self.job.trajectory.identity,
            "rows": self.job.trajectory.row(self.step),
            "totals": self.totals,
            "guard": self.guard.state(),
            "spans": [dict(vars(span)) for span in self.spans],  # as they are now: it is written later
            "logged": logged,
        }
        saver.begin(state, self.model.state_dict(), self.optimizer.named_state())

    # Steps.

    def _steps(self, saver: Saver, progress: Callable[[int, float], None], heard: Interruption) -> None:
        section, trajectory, last = self.section, self.job.trajectory, self.job.trajectory.steps
        begun_at = self.step
        self.spans = extended(self.spans, Span.of(section, self.world, begun_at, self.job.chosen))
        with self.record.open(self.step, self.logged):
            if section.initial_checkpoint and self.resumed is None:
                self._save(saver, self.record.lengths())
            for batch in self._batches():
                begun = time.perf_counter()
                rows = trajectory.row(self.step)
                rate = learning_rate(section.schedule, section.optimizer.learning_rate, self.step, last)
                passed = self.step in self.passed or self.step in self.rolled_back
                outcome = Outcome.passed_over(self.sources) if passed else self.update(batch, rows, rate, heard)
                self.step += 1
                self.spans[-1].until = self.step
                self._count(outcome)
                seconds = time.perf_counter() - begun
                self.record.step(self.step, outcome, rate, seconds + self.waited)
                if outcome.reason in ("not finite", "loss", "gradient norm"):
                    self._spike(outcome, rows)
                if self.world.chief:
                    progress(self.step, outcome.loss)
                self.record.measure(self.step, self.placed)
                if self.step % section.checkpoint_every == 0 or self.step == last or outcome.asked:
                    self._save(saver, self.record.lengths())
                    if outcome.asked and self.step < last:
                        saver.wait()
                        raise Interrupted(self.job.stage, self.step)

    def _batches(self) -> Iterator[Batch]:
        """This process's share of each batch from the current step on, and how long it was waited for."""
        trajectory = self.job.trajectory
        loader = Loader(
            self.job.sequence,
            self.section.batch,
            rank=self.world.data_rank,
            world_size=self.world.data_size,
            start=trajectory.row(self.step),
            positions=self.section.attention.positions,
            prefetch=PREFETCH,
            even=False,
        )
        batches = iter(loader)
        for _ in range(self.step, trajectory.steps):
            begun = time.perf_counter()
            batch = next(batches)
            self.waited = time.perf_counter() - begun
            yield batch

    def update(self, batch: Batch, rows: int, rate: float, heard: Interruption) -> Outcome:
        """One optimizer step, accumulating gradients over micro-batches and processes.

        Args:
            batch: this process's rows of the step.
            rows: the first row of the step.
            rate: the learning rate.
            heard: requests to stop.
        """
        section, device, placed = self.section, self.world.device, self.placed
        count = passes(section.batch, self.world.data_size, section.micro_batch)
        size = section.micro_batch or max(1, -(-section.batch // self.world.data_size))
        first = rows + self.world.data_rank * section.batch // self.world.data_size
        own_targets = float(placed.stretch.cut(batch.loss).sum())
        targets = self.world.sum(torch.tensor(own_targets, dtype=torch.float64, device=device))
        weight = section.loss.of_each(section.batch, targets.clamp(min=1)).float()
        sums = torch.zeros(3, self.sources, dtype=torch.float64, device=device)
        by_row = BatchLosses(batch.loss, placed.stretch, first - rows, section.batch, self.world)
        self.optimizer.zero_grad()
        given = section.attention, device, placed.stretch
        for i, micro in enumerate(micros(batch, first, self.job.sequence, count, size, *given)):
            with placed.accumulating(last=i == count - 1):
                loss, each = micro.forward(placed, weight, section.loss.z_loss)
                loss.backward()
            by_row.add(micro, each)
            assert micro.sources is not None
            sums[0].index_add_(0, micro.sources, each.double())
            sums[1].index_add_(0, micro.sources, torch.ones_like(each, dtype=torch.float64))
            if self.bytes is not None:
                sums[2].index_add_(0, micro.sources, self.bytes[micro.targets])
        # One exchange tells everything: sums, and in a place of its own what each process has of the machine.
        own = [0.0] * (2 * self.world.shares)
        memory = peak_memory(device) if self.record.due(self.step + 1) else 0
        place = 2 * self.world.share
        own[place : place + 2] = [self.waited, memory]
        mine = torch.tensor([*own, float(self.world.shared(heard.asked))], dtype=torch.float64, device=device)
        gradient = placed.gradient_norm().double().reshape(1)
        exchanged = torch.cat([self.world.sum(torch.cat([sums.flatten(), by_row.sums(), mine])), gradient]).cpu()
        parts = exchanged.split([3 * self.sources, 2 * section.batch, len(own), 1, 1])
        (summed, tokens, sizes), (row_sums, row_targets) = parts[0].view(3, -1), parts[1].view(2, -1).numpy()
        gradient_norm = float(parts[4])
        outcome = Outcome(
            summed.tolist(),
            [int(n) for n in tokens.tolist()],
            [int(n) for n in sizes.tolist()],
            gradient_norm,
            asked=float(parts[3]) > 0,
            waited=float(parts[2][::2].max()),
            memory=int(parts[2][1::2].max()),
            rows=RowLosses.of(row_sums, row_targets),
            each=by_row,
        )
        if not sum(outcome.tokens):
            outcome.reason = "no targets"
        else:
            outcome.reason = self.guard.reason(outcome.loss, gradient_norm)
        if outcome.reason is None:
            outcome.norms = self._step(gradient_norm, rate)
        return outcome

    def _step(self, gradient: float, rate: float) -> dict[str, float]:
        """Update the weights; returns their norm and their update's, if it is measured."""
        limit = self.section.optimizer.clip
        if limit is not None and gradient > limit:
            self.placed.scale_gradients(torch.tensor(limit / (gradient + 1e-6), device=self.world.device))
        self.optimizer.set_learning_rate(rate)
        if not self.record.norms_due(self.step + 1):
            self.optimizer.step()
            return {}
        weights = [parameter.detach() for parameter in self.model.parameters()]
        moved = [weight.clone() for weight in weights]
        self.optimizer.step()
        for before, after in zip(moved, weights, strict=True):
            before.sub_(after)
        return {"weight_norm": float(norm(weights)), "update_norm": float(norm(moved))}

    def _count(self, outcome: Outcome) -> None:
        """Add a step to the totals that checkpoints contain: tokens are those that changed the weights."""
        if outcome.reason is not None:
            self.totals = {**self.totals, "skipped": self.totals["skipped"] + 1}
            return
        trained = dict(self.totals["sources"])
        for name, tokens in zip(self.job.sequence.sources, outcome.tokens, strict=False):
            if tokens:
                trained[name] = trained.get(name, 0) + tokens
        self.totals = {**self.totals, "tokens": self.totals["tokens"] + sum(outcome.tokens), "sources": trained}

    # Outlying steps.

    def _spike(self, outcome: Outcome, rows: int) -> None:
        """Record an outlying step; roll back or stop if the recipe says so."""
        section, sources = self.section.guard, self.job.sequence.sources
        losses = {name: told["loss"] for name, told in outcome.by_source(sources).items()}
        in_a_row = self.guard.in_a_row
        while self.step - 1 - in_a_row in self.rolled_back:  # going back has forgotten these
            in_a_row += 1
        stop = section.action == "stop" or in_a_row >= section.in_a_row
        spike = {
            "step": self.step - 1,
            "rows": [rows, rows + self.section.batch - 1],
            "reason": outcome.reason,
            "action": "stop" if stop else section.action,
            "loss": finite(outcome.loss),
            "grad_norm": finite(outcome.norm),
            "sources": losses,
        }
        self.record.spike(self.step, outcome)
        if self.world.chief:
            guard.record(self.job.folder, spike)
        self.world.wait()
        if stop:
            raise self._lost(spike, in_a_row)
        if section.action == "rollback":
            if self.world.chief:
                warnings.warn(
                    f"Step {self.step} of stage {self.job.stage} ({outcome.reason}) is rolled back: its rows "
                    f"{rows} to {rows + self.section.batch - 1} will be passed over.",
                    Notice,
                    stacklevel=2,
                )
            raise _Rollback

    def _lost(self, spike: dict[str, Any], in_a_row: int) -> UserError:
        """The error for a loss that does not recover: names the step, its rows and the sources."""
        first = spike["rows"][0] - (in_a_row - 1) * self.section.batch
        losses = ", ".join(f"{n} {'not finite' if v is None else f'{v:.4g}'}" for n, v in spike["sources"].items())
        many = f" for {in_a_row} steps in a row" if in_a_row > 1 else ""
        what = "not finite" if spike["reason"] == "not finite" else "outlying"
        return UserError(
            f"The loss or gradient was {what}{many}.",
            f"stage {self.job.stage}, up to step {self.step}, rows {first} to {spike['rows'][1]} ({losses})",
            "Lower train.optimizer.learning_rate, lengthen the warmup, or look at the rows with `headrace spikes`.",
        )


class _Rollback(Exception):  # noqa: N818 - nothing went wrong
    """Go back to the newest checkpoint, and pass over the steps recorded as rolled back."""
