"""A stage's model: a step of the flow that trains it, evaluates it and generates samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from headrace.errors import UserError
from headrace.flow.artifact import Artifact, ConservationError
from headrace.flow.step import Phase, Step
from headrace.flow.storage import write_json
from headrace.flow.task import TaskContext
from headrace.model.config import parameter_count
from headrace.model.presets import resolve
from headrace.recipe.model import ModelConfig, ModelSection
from headrace.recipe.schema import Recipe, Stage
from headrace.recipe.training import TrainSection
from headrace.sequence.store import ArrowSequence

if TYPE_CHECKING:
    import torch

    from headrace.model.transformer import Transformer
    from headrace.tokens.engine import Engine
    from headrace.train.loop import Stage as Training

# These decide when and how often to write a checkpoint, not what is trained.
_NOT_IN_THE_BYTES = {"checkpoint_every", "keep"}


@dataclass(frozen=True)
class Model(Step):
    """The model after a stage.

    Files: ``model.safetensors`` (float32 weights), ``config.json`` (architecture), ``metrics.jsonl`` (one line per
    step), ``evaluation.json`` (held-out loss by source at start and end, training loss), ``samples.json``; and
    ``optimizer.safetensors`` if a later stage continues with it.

    Attributes:
        stage: the stage's name.
        section: the recipe's model section.
        train: the stage's training section.
        seed: the recipe's seed.
        sequence: the stage's sequence.
        tokenizer: the tokenizer.
        previous: the model to start from; None starts from new weights.
        evaluation: a held-out sequence.
        give_optimizer: whether to publish the optimizer's state too.
    """

    stage: str = field()  # the base class has None, which would make it optional
    section: ModelSection
    train: TrainSection
    seed: int
    sequence: Step
    tokenizer: Step
    previous: Model | None = None
    evaluation: Step | None = None
    give_optimizer: bool = False

    kind: ClassVar[str] = "model"
    VERSION: ClassVar[int] = 2

    @staticmethod
    def of(
        recipe: Recipe, stage: Stage, sequence: Step, start: Step | None, evaluation: Step | None, tokenizer: Step
    ) -> Model:
        """The model for a stage of a recipe.

        Args:
            recipe: a recipe with a model section.
            stage: one of its stages.
            sequence: the stage's sequence.
            start: the model to start from.
            evaluation: the held-out sequence.
            tokenizer: the tokenizer.
        """
        if recipe.model is None:
            raise ValueError("the recipe has no model section")
        wanted = any(
            other.train.carry_optimizer and begins_from(recipe, other) == stage.name for other in recipe.stages
        )
        previous = start if isinstance(start, Model) else None
        return Model(
            stage.name, recipe.model, stage.train, recipe.seed, sequence, tokenizer, previous, evaluation, wanted
        )

    def params(self) -> dict[str, Any]:
        """Architecture, training and seed."""
        return {
            "model": resolve(self.section, None).model_dump(mode="json"),
            "train": self.train.model_dump(mode="json", exclude=_NOT_IN_THE_BYTES),
            "seed": self.seed,
            "stage": self.stage,
            "give_optimizer": self.give_optimizer,
        }

    def inputs(self) -> dict[str, Step]:
        """Sequence and tokenizer; the model to start from and the held-out sequence if there are any."""
        optional = {"previous": self.previous, "evaluation": self.evaluation}
        needed = {"sequence": self.sequence, "tokenizer": self.tokenizer}
        return needed | {role: step for role, step in optional.items() if step is not None}

    def phases(self) -> list[Phase]:
        """One task, which uses all cores."""
        return [Phase("train", plan=lambda ctx: [{}], work=self._work, exclusive=True)]

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """Check that every token was attributed to a source."""
        [result] = ctx.results("train")
        if sum(result["counts"]["sources"].values()) != result["counts"]["loss_tokens"]:
            raise ConservationError(f"{self.name}: tokens by source do not add up: {result['counts']}")
        return result

    def _work(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        from headrace.train.machine import keep_memory, use_all_cores, wait_passively

        wait_passively()
        use_all_cores()
        keep_memory()
        from headrace.tokens.load import has_text, open_engine
        from headrace.train.loop import Stage as Training
        from headrace.train.loop import newest, train
        from headrace.train.optimizer import AdamW

        sequence = ArrowSequence(ctx.input("sequence"))
        steps = self._steps(sequence)
        tokenizer = ctx.input("tokenizer")
        engine = open_engine(tokenizer) if has_text(tokenizer) else None
        config = resolve(self.section, tokenizer.manifest.extra["vocab_size"])
        ctx.at(f"stage {self.stage}: starting weights")
        model = self._starting_model(ctx, config)
        optimizer = AdamW(model, self.train.optimizer)
        self._carry(ctx, optimizer)
        folder = folder_of(ctx.run, self.stage)
        stage = Training(self.stage, self.identity, self.train, sequence, folder, steps, model, optimizer)
        resumed = newest(stage)
        begin = resumed.state["begin"] if resumed is not None else {"held_out": self._held_out(ctx, model, engine)}
        ctx.at(f"stage {self.stage}: training")
        done = train(
            stage, begin, lambda step, loss: ctx.progress(rows=self.train.batch, step=step, steps=steps, loss=loss)
        )
        return self._publish(ctx, stage, engine, begin, done.state["totals"])

    def check_steps(self, run: Path) -> None:
        """Reject more steps than the sequence has batches, if the sequence exists, before any stage is trained.

        Args:
            run: the run folder.

        Raises:
            UserError: there are too few batches.
        """
        folder = run / "artifacts" / self.sequence.name
        if folder.is_dir():
            self._steps(ArrowSequence(Artifact.open(folder)))

    def _steps(self, sequence: ArrowSequence) -> int:
        batches = len(sequence) // self.train.batch
        where = f"stages.{self.stage}.train"
        if batches == 0:
            raise UserError(
                f"The sequence of stage {self.stage!r} has {len(sequence)} rows, too few for one batch of"
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
        return self.train.steps or batches

    def _starting_model(self, ctx: TaskContext, config: ModelConfig) -> Transformer:
        import torch
        from safetensors.torch import load_file

        from headrace.model.transformer import Transformer

        model = Transformer(config, torch.bfloat16 if self.train.precision == "bf16" else torch.float32)
        if self.previous is None:
            model.initialise(self.seed)
        else:
            model.load_state_dict(load_file(ctx.input("previous").file_path("model.safetensors")))
        return model.to(device())

    def _carry(self, ctx: TaskContext, optimizer: Any) -> None:
        if self.train.carry_optimizer and self.previous is not None:
            from safetensors.torch import load_file

            optimizer.load_named_state(load_file(ctx.input("previous").file_path("optimizer.safetensors")))

    def _held_out(self, ctx: TaskContext, model: Transformer, engine: Engine | None) -> dict[str, Any] | None:
        from headrace.evaluate.heldout import held_out_loss

        if self.evaluation is None:
            return None
        ctx.at(f"stage {self.stage}: held-out loss")
        sequence = ArrowSequence(ctx.input("evaluation"))
        rows = self.train.held_out.rows
        batch = self.train.micro_batch or self.train.batch
        return held_out_loss(model, sequence, self.train.attention, rows, batch, engine)

    def _publish(
        self, ctx: TaskContext, stage: Training, engine: Engine | None, begin: dict[str, Any], totals: dict[str, Any]
    ) -> dict[str, Any]:
        from headrace.train import metrics
        from headrace.train.checkpoint import write_tensors

        config = stage.model.config
        with ctx.file("model.safetensors") as out:
            write_tensors(out.path, stage.model.state_dict())
        if self.give_optimizer:
            with ctx.file("optimizer.safetensors") as out:
                write_tensors(out.path, stage.optimizer.named_state())
        with ctx.file("config.json") as out:
            write_json(out.path, config.model_dump(mode="json"))
        with ctx.file("metrics.jsonl") as out:
            lines = metrics.publish(stage.folder / metrics.FILE, out.path)
        evaluation = {
            "held_out": {"start": begin["held_out"], "end": self._held_out(ctx, stage.model, engine)},
            "train": train_losses(lines),
        }
        with ctx.file("evaluation.json") as out:
            write_json(out.path, evaluation)
        with ctx.file("samples.json") as out:
            write_json(out.path, self._samples(ctx, stage.model, engine))
        rows = stage.steps * self.train.batch
        counts = {
            "steps": stage.steps,
            "skipped": totals["skipped"],
            "rows": rows,
            "tokens": rows * ArrowSequence(ctx.input("sequence")).seq_len,
            "loss_tokens": totals["tokens"],
            "sources": totals["sources"],
        }
        return {"counts": counts, "parameters": parameter_count(config), "evaluation": evaluation}

    def _samples(self, ctx: TaskContext, model: Transformer, engine: Engine | None) -> list[dict[str, Any]]:
        from headrace.evaluate.sampling import held_out_prompts, stated_prompts, write_samples

        section = self.train.samples
        if section.tokens == 0 or engine is None:
            return []
        ctx.at(f"stage {self.stage}: samples")
        prompts = stated_prompts(section, engine)
        if self.evaluation is not None and "documents" in self.evaluation.inputs():
            infilled = infilled_sources(ArrowSequence(ctx.input("sequence")))
            prompts += held_out_prompts(section, ArrowSequence(ctx.input("evaluation")), engine, infilled)
        return write_samples(model, engine, prompts, section, self.seed, self.stage)


def begins_from(recipe: Recipe, stage: Stage) -> str | None:
    """The name of the stage whose model a stage starts from; None for the first and for `scratch`."""
    if stage.start is not None:
        return None if stage.start == "scratch" else stage.start
    names = [other.name for other in recipe.stages]
    at = names.index(stage.name)
    return names[at - 1] if at else None


def device() -> torch.device:
    """The accelerator if there is one, otherwise the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train_losses(lines: list[dict[str, Any]]) -> dict[str, float | None]:
    """``first``: the loss of the first logged step; ``last``: the mean of the last tenth (at least one)."""
    losses = [line["loss"] for line in lines if line["loss"] is not None]
    if not losses:
        return {"first": None, "last": None}
    tail = losses[-max(1, len(losses) // 10) :]
    return {"first": losses[0], "last": sum(tail) / len(tail)}


def infilled_sources(sequence: ArrowSequence, rows: int = 64) -> set[str]:
    """The sources with fill-in-the-middle in the first rows of a sequence, whose order is a uniform shuffle."""
    segments = [segment for row in range(min(rows, len(sequence))) for segment in sequence.segments(row)]
    return {sequence.sources[int(segment["source"])] for segment in segments if segment["kind"] in (1, 2)}


def folder_of(run: Path, stage: str) -> Path:
    """The folder of a stage's checkpoints and live metrics."""
    return run / "checkpoints" / stage
