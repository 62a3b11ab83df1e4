"""The step that takes weights from a folder: a stage can start from them as from another stage's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from headrace.errors import UserError
from headrace.flow.step import Phase, Step
from headrace.flow.storage import digest_file, write_json
from headrace.flow.task import TaskContext
from headrace.model.config import ForeignConfig, read_any


@dataclass(frozen=True)
class ImportedModel(Step):
    """Weights from a folder, by headrace's names.

    Files: ``model.safetensors`` (float32), ``config.json``.

    Attributes:
        folder: where they lie; never part of the identity.
        files: the digest of each file.
        config: the model.
    """

    folder: str
    files: Mapping[str, str]
    config: Mapping[str, Any]

    kind: ClassVar[str] = "weights"
    VERSION: ClassVar[int] = 1

    def params(self) -> dict[str, Any]:
        """The files and the model."""
        return {"files": sorted(self.files.values()), "config": dict(self.config)}

    def inputs(self) -> dict[str, Step]:
        """None: they lie in another folder."""
        return {}

    def phases(self) -> list[Phase]:
        """One task."""
        return [Phase("import", lambda ctx: [{}], self._work)]

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """Nothing to check that reading has not."""
        return {"counts": ctx.results("import")[0]}

    def _work(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        from headrace.model.huggingface.reading import Stored
        from headrace.model.huggingface.writing import write_whole

        folder, config = Path(self.folder), read_any(self.config)
        for name, digest in self.files.items():
            if digest_file(folder / name) != digest:
                raise UserError(
                    "The file has changed since the run looked at it.", str(folder / name), "Run the recipe again."
                )
        if isinstance(config, ForeignConfig):
            from headrace.model.foreign.folder import read_weights

            tensors = read_weights(config, folder)
            shapes, get = {name: tensor.shape for name, tensor in tensors.items()}, tensors.__getitem__
        else:
            stored = Stored.open(folder)
            shapes, get = stored.shapes, stored.parameter
        with ctx.file("model.safetensors") as out:
            write_whole(out.path, shapes, get)
        with ctx.file("config.json") as out:
            write_json(out.path, dict(self.config))
        return {"parameters": sum(shape.numel() for shape in shapes.values())}
