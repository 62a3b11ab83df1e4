"""What is measured of a stage's model, and what it writes: steps of their own, so that neither is part of the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from headrace.flow.artifact import Artifact
from headrace.flow.step import Phase, Step
from headrace.flow.storage import read_json, write_json
from headrace.flow.task import TaskContext
from headrace.model.config import read_any
from headrace.recipe.training import TrainSection
from headrace.sequence.store import ArrowSequence
from headrace.tokens.load import has_text, open_engine

if TYPE_CHECKING:
    from headrace.model.transformer import Transformer

DECISIVE = {"precision": True, "attention": True}  # keys of the training section that change what a model computes


@dataclass(frozen=True)
class Evaluation(Step):
    """Held-out loss by source of a stage's model.

    Files: ``evaluation.json``: ``{"initial", "held_out"}``, each as :func:`headrace.evaluate.heldout.held_out_loss`
    returns it; ``initial`` is that of the weights as drawn, null if the model started from another. ``held_out`` also
    has ``infilling`` if the recipe asks: what :func:`headrace.evaluate.infilling.infilling_exact_match` returns.

    Attributes:
        stage: the stage's name.
        train: its training section.
        seed: the recipe's seed.
        model: the model.
        initial: whether the model started from drawn weights.
        held_out: the held-out sequence.
        tokenizer: the tokenizer.
        sequence: the stage's sequence, which tells where fill-in-the-middle was used.
    """

    stage: str = field()
    train: TrainSection
    seed: int
    model: Step
    initial: bool
    held_out: Step
    tokenizer: Step
    sequence: Step

    kind: ClassVar[str] = "evaluation"
    VERSION: ClassVar[int] = 1

    def params(self) -> dict[str, Any]:
        """How it is measured."""
        how = self.train.model_dump(mode="json", include={**DECISIVE, "held_out": {"rows", "infilling"}})
        return {"stage": self.stage, "seed": self.seed, "initial": self.initial, **how}

    def inputs(self) -> dict[str, Step]:
        """Model, held-out sequence and tokenizer; for infilling the stage's sequence."""
        needed = {"model": self.model, "held_out": self.held_out, "tokenizer": self.tokenizer}
        return needed | ({"sequence": self.sequence} if self.train.held_out.infilling else {})

    def phases(self) -> list[Phase]:
        """One task, which uses all cores."""
        return [Phase("evaluate", plan=lambda ctx: [{}], work=self._work, exclusive=True)]

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """Nothing to check."""
        return {"counts": ctx.results("evaluate")[0]}

    def _work(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        from headrace.model.machine import prepare

        prepare()
        from headrace.evaluate.heldout import byte_sizes, held_out_loss
        from headrace.model.machine import device

        tokenizer, sequence = ctx.input("tokenizer"), ArrowSequence(ctx.input("held_out"))
        model = load_model(ctx, self.train)
        ids = model.config.vocab_size or 0
        sizes = byte_sizes(open_engine(tokenizer), ids) if has_text(tokenizer) else None

        def measure() -> dict[str, Any]:
            ctx.at(f"stage {self.stage}: held-out loss")
            rows, batch = self.train.held_out.rows, self.train.micro_batch or self.train.batch
            return held_out_loss(model, sequence, self.train.attention, rows, batch, device(), sizes)

        held_out, initial = measure(), None
        if self.train.held_out.infilling:
            own = ArrowSequence(ctx.input("sequence"))
            infilling = measured_infilling(tokenizer, own, sequence, self.train, self.seed)
            if infilling is not None:
                ctx.at(f"stage {self.stage}: infilling of held-out code")
                held_out["infilling"] = infilling(model)
        if self.initial:
            model.initialise(self.seed)
            initial = measure()
        with ctx.file("evaluation.json") as out:
            write_json(out.path, {"initial": initial, "held_out": held_out})
        return {"rows": held_out["rows"], "tokens": held_out["tokens"]}


@dataclass(frozen=True)
class Samples(Step):
    """Texts that a stage's model writes.

    Files: ``samples.json``, as :func:`headrace.evaluate.sampling.write_samples` returns it.

    Attributes:
        stage: the stage's name.
        train: its training section.
        seed: the recipe's seed.
        model: the model.
        tokenizer: the tokenizer.
        sequence: the stage's sequence, which tells where fill-in-the-middle was used.
        held_out: a held-out sequence with documents to take prompts from, if there is one.
    """

    stage: str = field()
    train: TrainSection
    seed: int
    model: Step
    tokenizer: Step
    sequence: Step
    held_out: Step | None = None

    kind: ClassVar[str] = "samples"
    VERSION: ClassVar[int] = 1

    def params(self) -> dict[str, Any]:
        """What is asked for."""
        how = self.train.model_dump(mode="json", include={**DECISIVE, "samples": True})
        return {"stage": self.stage, "seed": self.seed, **how}

    def inputs(self) -> dict[str, Step]:
        """Model and tokenizer, and the sequences that prompts come from."""
        needed = {"model": self.model, "tokenizer": self.tokenizer}
        if self.held_out is not None and "documents" in self.held_out.inputs():
            needed |= {"sequence": self.sequence, "held_out": self.held_out}
        return needed

    def phases(self) -> list[Phase]:
        """One task, which uses all cores."""
        return [Phase("write", plan=lambda ctx: [{}], work=self._work, exclusive=True)]

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """Nothing to check."""
        return {"counts": ctx.results("write")[0]}

    def _work(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        from headrace.model.machine import prepare

        prepare()
        from headrace.evaluate.sampling import held_out_prompts, stated_prompts, write_samples

        ctx.at(f"stage {self.stage}: samples")
        engine, section = open_engine(ctx.input("tokenizer")), self.train.samples
        prompts = stated_prompts(section, engine)
        if "held_out" in self.inputs():
            infilled = infilled_sources(ArrowSequence(ctx.input("sequence")))
            prompts += held_out_prompts(section, ArrowSequence(ctx.input("held_out")), engine, infilled)
        written = write_samples(load_model(ctx, self.train), engine, prompts, section, self.seed, self.stage)
        with ctx.file("samples.json") as out:
            write_json(out.path, written)
        return {"samples": len(written)}


def load_model(ctx: TaskContext, train: TrainSection) -> Transformer:
    """The model of a task's input ``model``, on this machine's device."""
    from safetensors.torch import load_file

    from headrace.model.build import build, dtype_of
    from headrace.model.machine import device

    artifact = ctx.input("model")
    told: Any = read_json(artifact.file_path("config.json"))
    model = build(read_any(told), dtype_of(train.precision, device()))
    model.load_state_dict(load_file(artifact.file_path("model.safetensors")))
    return model.to(device())


def measured_infilling(
    tokenizer: Artifact, sequence: ArrowSequence, held_out: ArrowSequence, train: TrainSection, seed: int
) -> Callable[[Transformer], dict[str, Any] | None] | None:
    """What measures how well a model on its device infills held-out documents; None if it is not asked for, or the
    tokenizer has no text."""
    if not train.held_out.infilling or not has_text(tokenizer):
        return None
    from headrace.evaluate.infilling import infilling_exact_match
    from headrace.evaluate.language import Own

    engine, about = open_engine(tokenizer), (held_out, infilled_sources(sequence), train.held_out.infilling, seed)
    return lambda model: infilling_exact_match(Own(model, engine), *about)


def infilled_sources(sequence: ArrowSequence, rows: int = 64) -> set[str]:
    """The sources with fill-in-the-middle in the first rows of a sequence, whose order is a uniform shuffle."""
    segments = [segment for row in range(min(rows, len(sequence))) for segment in sequence.segments(row)]
    return {sequence.sources[int(segment["source"])] for segment in segments if segment["kind"] in (1, 2)}
