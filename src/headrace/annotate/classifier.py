"""A sequence classifier of transformers that others publish, such as FineWeb-Edu's, applied as its pipeline would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.annotate.threads import one_thread, weights
from headrace.recipe.quality import Classifier
from headrace.select.quality.scorer import Found, Scorer

if TYPE_CHECKING:
    from headrace.annotate.classifier_model import ClassifierModel


class ClassifierScorer(Scorer):
    """The scorer. torch is imported when it is opened."""

    VERSION: ClassVar[int] = 1
    TOGETHER: ClassVar[bool] = True

    def __init__(self, model: ClassifierModel) -> None:
        self.model = model

    @classmethod
    def identity(cls, config: Classifier, found: Found) -> dict[str, Any]:
        """The folder's files and what is asked of them, not where it lies."""
        return {**config.model_dump(mode="json", exclude={"folder"}), "folder": found["files"]}

    @classmethod
    def memory(cls, config: Classifier) -> int:
        """The weights', and torch's."""
        return weights(config.folder)

    @classmethod
    def open(cls, config: Classifier, file: Callable[[str], Path], memory: int) -> ClassifierScorer:
        """Open the folder's classifier."""
        one_thread()
        from headrace.annotate.classifier_model import ClassifierModel

        return cls(ClassifierModel(config))

    def score(self, batch: pa.RecordBatch) -> npt.NDArray[np.float32]:
        """The mean over a text's windows of what it says; nan for a text without tokens."""
        return self.model.score(batch)
