"""A small pooled encoder, trained here from nothing: embeddings of a text's units, their mean and an attended mean, and
two layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.annotate.threads import TORCH, one_thread
from headrace.recipe.quality import Pooled
from headrace.select.quality.examples import Examples
from headrace.select.quality.scorer import TrainedScorer
from headrace.select.quality.units import BUCKETS

if TYPE_CHECKING:
    from headrace.annotate.pooled_model import PooledModel


class PooledScorer(TrainedScorer):
    """The scorer. torch is imported when it is opened or trained."""

    VERSION: ClassVar[int] = 1
    TOGETHER: ClassVar[bool] = True

    def __init__(self, model: PooledModel) -> None:
        self.model = model

    @classmethod
    def memory(cls, config: Pooled) -> int:
        """torch's, and of the weights, their gradients and two moments of these."""
        return TORCH + 16 * BUCKETS * config.width

    @classmethod
    def open(cls, config: Pooled, file: Callable[[str], Path], memory: int) -> PooledScorer:
        """Open what :meth:`save` wrote."""
        return cls(_model(config).load(file))

    def save(self) -> dict[str, bytes]:
        """Its weights."""
        return self.model.save()

    @classmethod
    def train(cls, config: Pooled, examples: Examples, share: float) -> PooledScorer:
        """Train one, from weights that are always drawn alike."""
        model = _model(config)
        model.train(examples, share)
        return cls(model)

    def score(self, batch: pa.RecordBatch) -> npt.NDArray[np.float32]:
        """Probabilities of being a positive; nan for a text without units."""
        return self.model.score(batch)


def _model(config: Pooled) -> PooledModel:
    one_thread()
    from headrace.annotate.pooled_model import PooledModel

    return PooledModel(config)
