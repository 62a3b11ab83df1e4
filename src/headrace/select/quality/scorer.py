"""What every kind of annotator is to the steps: something that scores documents, and may be trained.

To add a kind, write its section (:data:`headrace.recipe.quality.AnyAnnotator`) and a :class:`Scorer` in a file of its
own, and list it in :data:`SCORERS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

if TYPE_CHECKING:
    from headrace.recipe.quality import AnyAnnotator
    from headrace.select.quality.examples import Examples

SCORERS = {"linear": "headrace.select.quality.linear:LinearScorer"}
"""Where the scorer of each kind is; its module is imported when it is first needed."""

SCORE = pa.field("score", pa.float32())

Found = Mapping[str, Any]
"""What the coordinator found of the files that a section names: ``{"files": {name: digest}}``; empty without any."""


class Scorer(ABC):
    """Scores documents. Higher is better; NaN says nothing."""

    VERSION: ClassVar[int] = 1
    """Raised when scores change for the same section and files."""
    COLUMNS: ClassVar[tuple[str, ...]] = ("text",)
    """The columns of documents that it looks at, ``text`` among them."""
    SCHEMA: ClassVar[pa.Schema] = pa.schema([SCORE])
    """The columns of its sidecar, ``score`` first."""

    @classmethod
    def identity(cls, config: Any, found: Found) -> dict[str, Any]:
        """What decides the scores besides what it was trained to: JSON values only, no paths.

        Args:
            config: its section of the recipe.
            found: the digests of the files that the section names.
        """
        return {}

    @classmethod
    @abstractmethod
    def open(cls, config: Any, file: Callable[[str], Path], threads: int) -> Scorer:
        """Open it, once per process.

        Args:
            config: its section of the recipe.
            file: from the name of a file of :meth:`TrainedScorer.save` to where it is, checked against its digest.
            threads: CPU threads that it may use.

        Raises:
            UserError: files that the section names are missing or unusable, or a package is not installed.
        """

    @abstractmethod
    def score(self, batch: pa.RecordBatch) -> npt.NDArray[np.float32]:
        """Score documents, each by itself.

        Args:
            batch: documents with :attr:`COLUMNS`; ``text`` is a large_string.

        Returns:
            float32[n].
        """

    def annotate(self, batch: pa.RecordBatch) -> pa.Table:
        """The rows of the sidecar, with :attr:`SCHEMA`; for kinds that say more than a score."""
        return pa.table([pa.array(self.score(batch), pa.float32())], schema=self.SCHEMA)


class TrainedScorer(Scorer):
    """A scorer that is trained on examples. Its scores are probabilities of being a positive."""

    @classmethod
    @abstractmethod
    def train(cls, config: Any, examples: Examples, share: float, threads: int) -> TrainedScorer:
        """Train one; the same examples give the same one.

        Args:
            config: its section of the recipe.
            examples: what to train on: ``examples.training(share)`` gives batches, again for each pass.
            share: the share of the examples to train on.
            threads: CPU threads that it may use.
        """

    @abstractmethod
    def save(self) -> dict[str, bytes]:
        """File name -> content, from which :meth:`open` makes it again: safetensors, npy or JSON, never pickle."""


def scorer_of(config: AnyAnnotator) -> type[Scorer]:
    """The class that scores for a section."""
    module, _, name = SCORERS[config.kind].partition(":")
    found: type[Scorer] = getattr(import_module(module), name)
    return found


def buffers(batch: pa.RecordBatch) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The texts of a batch: uint8[bytes], and int64[n + 1] where each begins and ends."""
    from headrace.documents.store import text_buffers

    return text_buffers(batch.column("text"))
