"""A stage's model: the step of the flow that trains it on this machine, and what a launched training shares with it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from headrace.errors import UserError
from headrace.flow.artifact import Artifact, ConservationError
from headrace.flow.reuse import task_key
from headrace.flow.step import Phase, Step
from headrace.flow.storage import read_sealed, write_json
from headrace.flow.task import TaskContext
from headrace.model.config import AnyConfig, parameter_count
from headrace.model.presets import resolve
from headrace.model.rescaled import rescaled
from headrace.recipe.model import ModelSection, Rotary
from headrace.recipe.schema import Recipe, Stage
from headrace.recipe.training import TrainSection
from headrace.sequence.store import ArrowSequence
from headrace.tokens.load import has_text, open_engine
from headrace.train import losses, metrics
from headrace.train.outside import Outside
from headrace.train.trajectory import (
    MODEL,
    OPTIMIZER,
    STATE,
    Trajectory,
    decisive,
    read_trajectory,
    sequence_content,
    stage_folder,
)

if TYPE_CHECKING:
    from headrace.train.checkpoint import Checkpoint
    from headrace.train.job import Job

WEIGHTS, MOMENTS = "model.safetensors", "optimizer.safetensors"


@dataclass(frozen=True)
class Model(Step):
    """The model after a stage.

    Files: ``model.safetensors`` (float32 weights), ``optimizer.safetensors`` (its state, float32), ``config.json``
    (architecture), ``metrics.jsonl`` (one line per step), ``evaluations.jsonl`` (what was measured in between, if
    anything was), ``row_losses.bin`` and ``token_losses.bin`` (if they were recorded), ``training.json`` (the
    trajectory, and the spans in which it was carried out).

    Attributes:
        stage: the stage's name.
        section: the recipe's model section.
        train: the stage's training section.
        seed: the recipe's seed.
        sequence: the stage's sequence.
        tokenizer: the tokenizer.
        previous: the model to start from; None starts from new weights.
        found: the configuration in the folder that the section names, if it names one.
        after: the trajectory that this one continues, when a recipe was edited in the middle of a stage.
        outside: the checkpoint to start from, if it is of another run.
        first_row: the row of the sequence to begin with.
        held_out: rows to measure the model on while it trains, if they exist by then; no part of its identity.
        rotary: rotary frequencies other than the section's, if a stage up to this one changes them.
    """

    stage: str = field()  # the base class has None, which would make it optional
    section: ModelSection
    train: TrainSection
    seed: int
    sequence: Step
    tokenizer: Step
    previous: Step | None = None
    found: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    outside: Outside | None = None
    first_row: int = 0
    held_out: Step | None = None
    rotary: Rotary | None = None

    kind: ClassVar[str] = "model"
    VERSION: ClassVar[int] = 3

    @staticmethod
    def of(
        recipe: Recipe,
        stage: Stage,
        sequence: Step,
        start: Step | None,
        tokenizer: Step,
        outside: Outside | None = None,
        found: Mapping[str, Any] | None = None,
        held_out: Step | None = None,
    ) -> Model:
        """The model for a stage of a recipe.

        Args:
            recipe: a recipe with a model section.
            stage: one of its stages.
            sequence: the stage's sequence.
            start: the model to start from.
            tokenizer: the tokenizer.
            outside: the checkpoint of another run to start from.
            found: the configuration in the folder that the recipe's model section names, if it names one.
            held_out: the held-out sequence, if there is one.
        """
        if recipe.model is None:
            raise ValueError("the recipe has no model section")
        after = None if outside is None else outside.after
        about = stage.name, recipe.model, stage.train, recipe.seed, sequence, tokenizer
        return Model(*about, start, found, after, outside, stage.first_row, held_out, recipe.rotary(stage))

    @property
    def is_new(self) -> bool:
        """Whether its first weights are drawn."""
        return self.previous is None and self.after is None and self.outside is None

    def params(self) -> dict[str, Any]:
        """Architecture, training and seed."""
        return {
            "model": self._config(None).model_dump(mode="json"),
            "train": {**decisive(self.train), "steps": self.train.steps},
            "seed": self.seed,
            "stage": self.stage,
            "after": self.after and dict(self.after),
            **({} if self.outside is None else {"outside": self.outside.identity()}),
            **({"first_row": self.first_row} if self.first_row else {}),
        }

    def inputs(self) -> dict[str, Step]:
        """Sequence and tokenizer, and the model to start from if there is one."""
        needed = {"sequence": self.sequence, "tokenizer": self.tokenizer}
        return needed if self.previous is None else {**needed, "previous": self.previous}

    def phases(self) -> list[Phase]:
        """One task, which uses all cores."""
        return [Phase("train", plan=self._plan, work=self._work, exclusive=True)]

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """Check that every token was attributed to a source."""
        [result] = ctx.results("train")
        if sum(result["counts"]["sources"].values()) != result["counts"]["loss_tokens"]:
            raise ConservationError(f"{self.name}: tokens by source do not add up: {result['counts']}")
        return result

    def trajectory(self, ctx: TaskContext) -> Trajectory:
        """What this training is, by the content of its inputs.

        Raises:
            UserError: the sequence has too few batches.
        """
        sequence = ArrowSequence(ctx.input("sequence"))
        start = {}
        if self.outside is not None and not self.outside.resume:
            start = {"model": self.outside.digest}
            if self.outside.carry:
                start["optimizer"] = self.outside.digest
        elif self.previous is not None:
            files = {str(entry["name"]): str(entry["digest"]) for entry in ctx.input("previous").manifest.files}
            start = {"model": files[WEIGHTS]}
            if self._carries:
                start["optimizer"] = files[MOMENTS]
        return Trajectory(
            self.config(ctx).model_dump(mode="json"),
            decisive(self.train),
            self.seed,
            self._last_step(sequence),
            sequence_content(sequence.fingerprint, len(sequence), sequence.seq_len, self.first_row),
            start,
            self.after,
        )

    def folder(self, run: Path) -> Path | None:
        """The folder of its trajectory's checkpoints; None while an input is missing."""
        if not all((run / "artifacts" / step.name).is_dir() for step in self.inputs().values()):
            return None
        return stage_folder(run, self.stage) / self.trajectory(TaskContext(run, self)).identity

    @property
    def _carries(self) -> bool:
        """Whether it continues with an optimizer's state; imported weights have none."""
        return self.train.carry_optimizer and isinstance(self.previous, Model)

    def config(self, ctx: TaskContext) -> AnyConfig:
        """The model's complete configuration."""
        return self._config(ctx.input("tokenizer").manifest.extra["vocab_size"])

    def _config(self, tokenizer_size: int | None) -> AnyConfig:
        return rescaled(resolve(self.section, tokenizer_size, self.found), self.rotary, self.stage)

    def job(self, ctx: TaskContext) -> Job:
        """The stage, ready to be trained."""
        from headrace.evaluate.heldout import byte_sizes
        from headrace.train.job import Job, Start

        start = Start()
        if self.outside is not None and self.after == self.outside.after:
            start = self.outside.start()
        elif self.after is not None:
            folder = stage_folder(ctx.run, self.stage) / self.after["trajectory"] / f"step-{self.after['step']:08d}"
            old = read_trajectory(folder.parent)
            same = old is None or old.optimizer == self.train.optimizer.kind
            start = Start(folder / MODEL, folder / OPTIMIZER if same else None, read_sealed(folder / STATE)["totals"])
        elif self.previous is not None:
            before = ctx.input("previous")
            weights = before.file_path(WEIGHTS)  # compares its digest
            moments = before.file_path(MOMENTS) if self._carries else None
            start = Start(weights, moments)
        sequence, config = ArrowSequence(ctx.input("sequence")), self.config(ctx)
        about = ctx.run, self.stage, self.train, config, sequence, self.trajectory(ctx), start
        tokenizer = ctx.input("tokenizer")
        sizes = byte_sizes(open_engine(tokenizer), config.vocab_size or 0) if has_text(tokenizer) else None
        held_out = self._measured_on(ctx.run)
        infilling = None
        if held_out is not None:
            from headrace.evaluate.step import measured_infilling

            infilling = measured_infilling(tokenizer, sequence, held_out, self.train, self.seed)
        return Job(*about, sizes, held_out, infilling)

    def _measured_on(self, run: Path) -> ArrowSequence | None:
        every = self.train.held_out.every
        if every is None:
            return None
        folder = None if self.held_out is None else run / "artifacts" / self.held_out.name
        if folder is None or not folder.is_dir():
            raise UserError(
                f"Held-out loss is to be measured every {every} steps, and there are no held-out rows"
                f"{'' if folder is None else ' yet'}.",
                f"stages.{self.stage}.train.held_out.every",
                "Give `split.validation`, or null here." if folder is None else "Make them with `headrace run`.",
            )
        return ArrowSequence(Artifact.open(folder, verify=True))

    def check_steps(self, run: Path) -> None:
        """Reject more steps than the sequence has batches, if the sequence exists, before any stage is trained.

        Args:
            run: the run folder.

        Raises:
            UserError: there are too few batches.
        """
        folder = run / "artifacts" / self.sequence.name
        if folder.is_dir():
            self._last_step(ArrowSequence(Artifact.open(folder)))

    def _last_step(self, sequence: ArrowSequence) -> int:
        step, row = (0, self.first_row) if self.after is None else (int(self.after["step"]), int(self.after["rows"]))
        batches = step + (len(sequence) - row) // self.train.batch
        where = f"stages.{self.stage}.train"
        if batches <= step:
            raise UserError(
                f"The sequence of stage {self.stage!r} has {max(0, len(sequence) - row)} rows, too few for one batch of"
                f" {self.train.batch}.",
                f"{where}.batch",
                "Reduce the batch or the sequence length, or give the stage more text.",
            )
        if self.train.steps is not None and self.train.steps > batches:
            raise UserError(
                f"Stage {self.stage!r} asks for {self.train.steps} steps, but its sequence has only {batches} batches.",
                f"{where}.steps",
                f"Ask for at most {batches}, or give the stage's sources more epochs.",
            )
        for first, last in self.train.leave_out:
            if last >= len(sequence):
                raise UserError(
                    f"Rows {first} to {last} are to be left out, and the sequence has rows 0 to {len(sequence) - 1}.",
                    f"{where}.leave_out",
                    "Take the rows from `headrace spikes`; another sequence has other rows.",
                )
        return self.train.steps or batches

    def _plan(self, ctx: TaskContext) -> list[dict[str, Any]]:
        # The log has the names of the sources that the rows come from, the trajectory has not.
        ledger = ArrowSequence(ctx.input("sequence")).manifest["ledger"]
        return [{"key": task_key(self, self.trajectory(ctx).values(), sorted(ledger.get("sources", ())))}]

    def _work(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        from headrace.model.machine import device, prepare

        prepare()
        from headrace.train.automatic import announced, decided
        from headrace.train.checkpoint import complete, newest
        from headrace.train.interruption import Interruption
        from headrace.train.loop import Trainer
        from headrace.train.world import World

        ctx.at(f"stage {self.stage}: training")
        job = announced(self.job(ctx), *decided(self, ctx.run, 1, 1))
        there = complete(job.folder)  # the trainer compares digests itself
        done = newest(job.folder, ctx.run) if there and there[-1].step >= job.trajectory.steps else None
        if done is None or done.step < job.trajectory.steps:
            with Interruption() as heard:
                done = Trainer(job, World(device=device())).train(self._progress(ctx, job), heard)
        return self._publish(ctx, job, done)

    def _progress(self, ctx: TaskContext, job: Job) -> Any:
        return lambda step, loss: ctx.progress(rows=self.train.batch, step=step, steps=job.trajectory.steps, loss=loss)

    def _publish(self, ctx: TaskContext, job: Job, done: Checkpoint) -> dict[str, Any]:
        from headrace.train.checkpoint import whole_file

        for part, name in ((MODEL, WEIGHTS), (OPTIMIZER, MOMENTS)):
            with ctx.file(name) as out:
                whole_file(done, part, out.path)
        with ctx.file("config.json") as out:
            write_json(out.path, job.config.model_dump(mode="json"))
        with ctx.file(metrics.FILE) as out:
            metrics.publish(job.folder / metrics.FILE, out.path)
        if metrics.read(job.folder / metrics.EVALUATIONS):
            with ctx.file(metrics.EVALUATIONS) as out:
                metrics.publish(job.folder / metrics.EVALUATIONS, out.path)
        for name in (losses.ROWS, losses.TOKENS):
            if (job.folder / name).exists():
                with ctx.file(name) as out:
                    shutil.copyfile(job.folder / name, out.path)
        with ctx.file("training.json") as out:
            write_json(out.path, {"trajectory": job.trajectory.values(), "spans": done.state["spans"]})
        rows = job.trajectory.row(job.trajectory.steps)
        counts = {
            "steps": job.trajectory.steps,
            "skipped": done.state["totals"]["skipped"],
            "rows": rows,
            "tokens": rows * job.sequence.seq_len,
            "loss_tokens": done.state["totals"]["tokens"],
            "sources": done.state["totals"]["sources"],
        }
        return {"counts": counts, "parameters": parameter_count(job.config), "trajectory": job.trajectory.identity}
