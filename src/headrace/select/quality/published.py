"""Scorers by fastText models that others publish: classifiers of quality, and of languages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.recipe.quality import FastText, Language
from headrace.select.quality.fasttext import Classifier, best
from headrace.select.quality.scorer import SCORE, Found, Scorer, buffers


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
    def open(cls, config: FastText, file: Callable[[str], Path], threads: int) -> FastTextScorer:
        """Read the file."""
        model = Classifier(Path(config.file))
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
    def identity(cls, config: Language, found: Found) -> dict[str, Any]:
        """The file's content."""
        return {"model": list(found["files"].values())}

    @classmethod
    def open(cls, config: Language, file: Callable[[str], Path], threads: int) -> LanguageScorer:
        """Read the file."""
        return cls(Classifier(Path(config.named)))

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
