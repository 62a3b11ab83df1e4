"""What every kind of annotator is to the steps: something that scores documents, and may be trained.

To add a kind, write its section (:data:`headrace.recipe.quality.AnyAnnotator`) and a :class:`Scorer` in a file of its
own, and list it in :data:`SCORERS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.errors import UserError
from headrace.flow.storage import digest_file

if TYPE_CHECKING:
    from headrace.recipe.quality import AnyAnnotator
    from headrace.select.quality.examples import Examples

SCORERS = {
    "linear": "headrace.select.quality.linear:LinearScorer",
    "encoder": "headrace.annotate.encoder:EncoderScorer",
    "pooled": "headrace.annotate.pooled:PooledScorer",
    "fasttext": "headrace.select.quality.published:FastTextScorer",
    "classifier": "headrace.annotate.classifier:ClassifierScorer",
    "language": "headrace.select.quality.published:LanguageScorer",
    "perplexity": "headrace.perplexity:PerplexityScorer",
}
"""Where the scorer of each kind is; its module is imported when it is first needed."""

SCORE = pa.field("score", pa.float32())

Found = Mapping[str, Any]
"""What the coordinator found of the files that a section names: ``{"files": {name: digest}}``; empty without any."""

Digests = Callable[[Sequence[Path]], list[str]]

_READ = (".safetensors", ".json", ".txt", ".model")  # the files of a model's folder that anything is read from


class Scorer(ABC):
    """Scores documents. Higher is better; NaN says nothing."""

    VERSION: ClassVar[int] = 1
    """Raised when scores change for the same section and files."""
    COLUMNS: ClassVar[tuple[str, ...]] = ("text",)
    """The columns of documents that it looks at, ``text`` among them."""
    SCHEMA: ClassVar[pa.Schema] = pa.schema([SCORE])
    """The columns of its sidecar, ``score`` first."""
    TOGETHER: ClassVar[bool] = False
    """Whether documents of a batch are computed together, so that the last bits of a score depend on its batch."""

    @classmethod
    def find(cls, config: Any, digests: Digests, where: str) -> Found:
        """Look at the files that a section names.

        Args:
            config: its section of the recipe.
            digests: finds the digests of files.
            where: the section's place, for errors.

        Raises:
            UserError: there is no such file or folder.
        """
        if config.named is None:
            return {}
        path = Path(config.named)
        there = sorted(one for one in path.rglob("*") if one.suffix in _READ) if path.is_dir() else [path]
        if not there or not there[0].is_file():
            what = "The folder holds no model." if path.is_dir() else "There is no such file or folder."
            raise UserError(what, f"{where}: {path}", "Correct the path.")
        names = (one.relative_to(path).as_posix() if path.is_dir() else one.name for one in there)
        return {"files": dict(zip(names, digests(there), strict=True))}

    @classmethod
    def memory(cls, config: Any) -> int:
        """About how many bytes it takes besides the documents' once it is open."""
        return 0

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
    def open(cls, config: Any, file: Callable[[str], Path], memory: int) -> Scorer:
        """Open it, once per process.

        Args:
            config: its section of the recipe.
            file: from the name of a file of :meth:`TrainedScorer.save` to where it is, checked against its digest.
            memory: bytes that it may take.

        Raises:
            UserError: files that the section names are unusable, or a package is not installed.
            MemoryShareError: it needs more memory.
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
    def train(cls, config: Any, examples: Examples, share: float) -> TrainedScorer:
        """Train one; the same examples give the same one.

        Args:
            config: its section of the recipe.
            examples: what to train on: ``examples.training(share)`` gives batches, again for each pass.
            share: the share of the examples to train on.
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


def check_files(config: Any, found: Found, where: str) -> None:
    """Check that the files that a section names are those that the coordinator found.

    Raises:
        UserError: they have changed.
    """
    if scorer_of(config).find(config, lambda paths: [digest_file(path) for path in paths], where) != found:
        raise UserError("The annotator's files have changed since the run looked at them.", where, "Run it again.")
