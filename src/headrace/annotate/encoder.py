"""Arctic-SnowCoder's kind of annotator (2409.02326, 2.2.2): an encoder of transformers with a linear head."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.annotate.threads import one_thread, weights
from headrace.recipe.quality import Encoder
from headrace.select.quality.examples import Examples
from headrace.select.quality.scorer import Found, TrainedScorer

if TYPE_CHECKING:
    from headrace.annotate.encoder_model import EncoderModel


class EncoderScorer(TrainedScorer):
    """The scorer. torch is imported when it is opened or trained."""

    VERSION: ClassVar[int] = 1
    TOGETHER: ClassVar[bool] = True

    def __init__(self, model: EncoderModel) -> None:
        self.model = model

    @classmethod
    def identity(cls, config: Encoder, found: Found) -> dict[str, Any]:
        """The folder's files, not where it lies."""
        return {"folder": found["files"]}

    @classmethod
    def memory(cls, config: Encoder) -> int:
        """The weights', and torch's."""
        return weights(config.folder)

    @classmethod
    def open(cls, config: Encoder, file: Callable[[str], Path], memory: int) -> EncoderScorer:
        """Open what :meth:`save` wrote, with the folder's encoder."""
        return cls(_model(config).load(file))

    def save(self) -> dict[str, bytes]:
        """The head, and the encoder if it was trained."""
        return self.model.save()

    @classmethod
    def train(cls, config: Encoder, examples: Examples, share: float) -> EncoderScorer:
        """Fit the head, and train the encoder with it if the recipe says so."""
        model = _model(config)
        model.train(examples, share)
        return cls(model)

    def score(self, batch: pa.RecordBatch) -> npt.NDArray[np.float32]:
        """Probabilities of being a positive; nan for a text without tokens."""
        return self.model.score(batch)


def _model(config: Encoder) -> EncoderModel:
    one_thread()
    from headrace.annotate.encoder_model import EncoderModel

    return EncoderModel(config)
