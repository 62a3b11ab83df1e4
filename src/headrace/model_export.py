"""The step that writes a stage's model for transformers: weights, configuration, tokenizer, card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

from headrace.flow.artifact import Artifact
from headrace.flow.step import Phase, Step
from headrace.flow.task import TaskContext
from headrace.formats.tokenizer_files import encoded, tokenizer_files
from headrace.run_folder import artifact, read_files, read_graph, read_recipe

if TYPE_CHECKING:
    from headrace.model.huggingface.writing import Written

FORMAT = "huggingface"
SMALL = 64 << 20  # the largest tokenizer.json, and the card


@dataclass(frozen=True)
class ModelExport(Step):
    """A stage's model in an architecture of transformers, or in the released CrystalCoder's layout.

    Attributes:
        run: the run folder; never part of the identity.
        model: the stage whose model it is.
        stages: the stages that it went through, in order.
        made_of: the identities of their models and of the tokenizer.
        dtype: of the weights, as torch names it.
    """

    run: str
    model: str
    stages: tuple[str, ...]
    made_of: tuple[str, ...]
    dtype: str = "float32"

    kind: ClassVar[str] = "export"
    VERSION: ClassVar[int] = 2
    format: ClassVar[str] = FORMAT

    @staticmethod
    def of(run: Path, stage: str, dtype: str) -> ModelExport:
        """The export of a stage's model.

        Raises:
            UserError: the run has no such model, or it is not finished.
        """
        artifact(run, "model", stage)
        models, at = read_graph(run).models, stage
        chain: list[str] = []
        while True:
            chain.insert(0, at)
            previous = models[at].inputs().get("previous")
            if previous is None or previous.stage is None:
                break
            at = previous.stage
        made = [artifact(run, "model", name) for name in chain] + [artifact(run, "tokenizer")]
        about = str(run.absolute()), stage, tuple(chain), tuple(one.manifest.identity for one in made)
        return ModelExport(*about, dtype)

    def params(self) -> dict[str, Any]:
        """What it is made of."""
        return {"format": FORMAT, "made_of": list(self.made_of), "stages": list(self.stages), "dtype": self.dtype}

    def inputs(self) -> dict[str, Step]:
        """None: the model lies in another folder, and is part of the parameters."""
        return {}

    def check(self) -> None:
        """Refuse a model that no architecture holds."""
        self._written()

    def left_behind(self) -> str:
        """Nothing."""
        return ""

    @property
    def _model(self) -> Artifact:
        return artifact(self.run, "model", self.model)

    @property
    def _dtype(self) -> Any:
        import torch

        return getattr(torch, self.dtype)

    @property
    def _length(self) -> int:
        recipe = read_recipe(Path(self.run))
        return max(recipe.stage(name).sequence_length for name in self.stages)

    def phases(self) -> list[Phase]:
        """A task a file of weights, then what stands beside them."""
        return [
            Phase("weights", self._plan, self._weights, lambda spec: 2 * int(spec["size"])),
            Phase("close", lambda ctx: [{}], self._close, lambda spec: SMALL),
        ]

    def _plan(self, ctx: TaskContext) -> list[dict[str, Any]]:
        written = self._written()
        if written is None:
            return [{"size": self._model.path.joinpath("model.safetensors").stat().st_size}]
        shapes = written.shapes
        return [
            {"file": file, "names": names, "size": sum(4 * shapes[name].numel() for name in names)}  # as they are read
            for file, names in written.files()
        ]

    def _weights(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        from safetensors.torch import save_file

        written = self._written()
        if written is None:
            return self._foreign(ctx)
        tensors = dict(written.tensors(spec["names"]))
        with ctx.file(spec["file"]) as out:
            save_file(tensors, out.path, metadata={"format": "pt"})
        ctx.progress(bytes=int(spec["size"]))
        return {"parameters": sum(tensor.numel() for tensor in tensors.values())}

    def _foreign(self, ctx: TaskContext) -> dict[str, Any]:
        """A model of transformers is written by transformers."""
        from headrace.model.foreign.folder import write
        from headrace.model.huggingface.reading import tensors
        from headrace.model.huggingface.writing import FILE_BYTES

        found = tensors(self._model.path)
        with TemporaryDirectory(dir=ctx.folder) as made:
            write(self._config(), lambda name: found[name].read(), Path(made), FILE_BYTES, self._dtype)
            for path in sorted(Path(made).iterdir()):
                if path.name != "generation_config.json":  # the tokenizer's ends of text come from the run
                    with ctx.file(path.name) as out:
                        path.replace(out.path)
        return {"parameters": self._model.manifest.extra["parameters"]}

    def _close(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        from headrace.model.huggingface.gpt2_like import CRYSTALCODER
        from headrace.model.huggingface.reading import INDEX
        from headrace.report.card.facts import made
        from headrace.report.card.model import TrainedStage, model_card
        from headrace.report.gather import present
        from headrace.sequence.chat_template import chat_template

        run, written, recipe = Path(self.run), self._written(), read_recipe(Path(self.run))
        chat, named = recipe.stage(self.model).chat, read_files(recipe, run)
        template = None if named is None else named.templates.get(self.model)
        if template is None and chat is not None:
            template = chat_template(chat)
        files = tokenizer_files(artifact(run, "tokenizer"), template, self._length)
        if written is not None:
            files["config.json"] = written.describe(self._length)
            if len(written.files()) > 1:
                files[INDEX] = written.index(written.files())
            architecture = written.architecture
        else:
            told = self._config().huggingface
            architecture = str((told.get("architectures") or [told["model_type"]])[0])
        trained = []
        for name in self.stages:
            counts = artifact(run, "model", name).manifest.counts
            trained.append(TrainedStage(name, counts["steps"], counts["tokens"], counts["loss_tokens"]))
        known = ("verdicts", None) in present(run, recipe)
        parameters = self._model.manifest.extra["parameters"]
        card = model_card(
            recipe.name,
            architecture,
            parameters,
            written is not None and written.family is CRYSTALCODER,
            trained,
            made(run, self.stages).facts() if known else None,
        )
        for name, content in files.items():
            with ctx.file(name) as out:
                out.path.write_bytes(encoded(content))
        with ctx.file("README.md") as out:
            out.path.write_text(card, encoding="utf-8")
        return {"architecture": architecture}

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """How many parameters were written."""
        parameters = sum(result["parameters"] for result in ctx.results("weights"))
        [closed] = ctx.results("close")
        return {"counts": {self.model: {"parameters": parameters}}, "format": FORMAT, **closed}

    def _config(self) -> Any:
        from headrace.model.config import read_any
        from headrace.model.huggingface.reading import read_json

        return read_any(read_json(self._model.path / "config.json"))

    def _written(self) -> Written | None:
        """The model as an architecture holds it; None if it is one of transformers as it is."""
        from headrace.model.config import ForeignConfig
        from headrace.model.huggingface.reading import Stored
        from headrace.model.huggingface.writing import Written

        if isinstance(self._config(), ForeignConfig):
            return None
        stored = Stored.open(self._model.path)
        return Written(stored.config, stored.parameter, self._dtype)
