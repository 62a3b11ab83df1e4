"""A sequence classifier of transformers with its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from headrace.annotate.pretrained import Pretrained
from headrace.errors import UserError
from headrace.recipe.mistakes import suggest
from headrace.recipe.quality import Classifier
from headrace.select.quality.scorer import buffers
from headrace.select.quality.windows import averaged, windows


class ClassifierModel:
    """A classifier: a text's score is the mean over its windows of one output.

    Args:
        config: its section of the recipe.

    Raises:
        UserError: as :class:`headrace.annotate.pretrained.Pretrained`, or it has no such label.
    """

    def __init__(self, config: Classifier) -> None:
        self.config = config
        self.body = Pretrained(
            Path(config.folder), "AutoModelForSequenceClassification", config.window, config.precision == "bf16", WHERE
        )
        self._at = self._output(self.body.model.config)
        self._function = _function(self.body.model.config)

    def score(self, batch: pa.RecordBatch) -> npt.NDArray[np.float32]:
        """float32[n]; nan for a text without tokens."""
        data, offsets = buffers(batch)
        found, owners = windows(data, offsets, self.body.encode, self.body.length, self.config.windows)
        scores = self.body.compute(found, self._read, 1)
        return averaged(scores[:, 0], owners, batch.num_rows)

    def _read(self, out: Any, mask: Tensor) -> Tensor:
        logits = out.logits.float()
        if self._function == "sigmoid":
            logits = torch.sigmoid(logits)
        elif self._function == "softmax":
            logits = torch.softmax(logits, dim=-1)
        return logits[:, self._at : self._at + 1]

    def _output(self, config: Any) -> int:
        """Which output is asked for."""
        labels = [str(config.id2label.get(k, f"LABEL_{k}")) for k in range(config.num_labels)]
        asked = self.config.label
        if asked is None and len(labels) > 1:
            raise UserError(
                "The classifier has several labels, and its section names none.", f"{WHERE}: {self.body.folder}",
                f"Add `label`, one of {_told(labels)}.",
            )  # fmt: skip
        if asked is not None and asked not in labels:
            fix = suggest(asked, labels) or f"Its labels are {_told(labels)}."
            raise UserError(f"The classifier has no label {asked!r}.", f"{WHERE}: {self.body.folder}", fix)
        return 0 if asked is None else labels.index(asked)


WHERE = "quality.annotators"


def _told(labels: list[str]) -> str:
    return ", ".join(labels[:20]) + (f" and {len(labels) - 20} more" if len(labels) > 20 else "")


def _function(config: Any) -> str:
    """What becomes of the outputs, as in the text classification pipeline of transformers."""
    if config.problem_type == "regression":
        return "none"
    return "sigmoid" if config.problem_type == "multi_label_classification" or config.num_labels == 1 else "softmax"
