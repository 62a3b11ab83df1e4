"""An annotator that is a language model: how well it predicts a document, in bits per byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.annotate.threads import TORCH, one_thread
from headrace.evaluation import Target, find_target
from headrace.recipe.quality import Perplexity
from headrace.select.quality.scorer import SCORE, Digests, Found, Scorer, buffers
from headrace.select.quality.windows import Ids, batches, windows

if TYPE_CHECKING:
    from headrace.evaluate.language import Language

# Logits that are in memory at a time: 64 MB in float32. And tokens: 8 windows of 1,024.
_LOGITS, _TOKENS = 1 << 24, 8192


class PerplexityScorer(Scorer):
    """The scorer: the score is minus the bits per byte, so that what a model predicts best comes first."""

    VERSION: ClassVar[int] = 1
    TOGETHER: ClassVar[bool] = True
    SCHEMA: ClassVar[pa.Schema] = pa.schema([SCORE, ("bits_per_byte", pa.float32())])

    def __init__(self, config: Perplexity, language: Language) -> None:
        self.config, self.language = config, language
        self._start = language.encode("")
        self._length = config.window if language.longest is None else min(config.window, language.longest - 1)

    @classmethod
    def identity(cls, config: Perplexity, found: Found) -> dict[str, Any]:
        """The model and its tokenizer, not where they lie."""
        return {**config.model_dump(mode="json", include={"window", "windows"}), "model": found["digest"]}

    @classmethod
    def find(cls, config: Perplexity, digests: Digests, where: str) -> Found:
        """Look at the model."""
        return {"digest": _target(config).digest}

    @classmethod
    def memory(cls, config: Perplexity) -> int:
        """Without the weights, whose room is looked for when they are read."""
        return TORCH

    @classmethod
    def open(cls, config: Perplexity, file: Callable[[str], Path], memory: int) -> PerplexityScorer:
        """Load the model."""
        one_thread()
        return cls(config, _target(config).open())

    def score(self, batch: pa.RecordBatch) -> npt.NDArray[np.float32]:
        """Minus the bits per byte."""
        return -self._bits(batch)

    def annotate(self, batch: pa.RecordBatch) -> pa.Table:
        """The score, and the bits per byte; null for a document without text."""
        bits = self._bits(batch)
        columns = [pa.array(values, pa.float32(), mask=np.isnan(bits)) for values in (-bits, bits)]
        return pa.table(columns, schema=self.SCHEMA)

    def _bits(self, batch: pa.RecordBatch) -> npt.NDArray[np.float32]:
        """Bits per byte over all windows of a document."""
        import torch

        data, offsets = buffers(batch)
        found, owners = windows(data, offsets, self._encode, self._length, self.config.windows)
        bits, sizes = np.zeros(len(found)), np.array([self._bytes(ids) for ids in found], dtype=np.float64)
        most = max(1, min(_TOKENS, _LOGITS // self._vocabulary()))
        with torch.inference_mode():
            for rows in batches([len(ids) for ids in found], most):
                some = [found[row] for row in rows.tolist()]
                ids = np.zeros((len(some), 1 + max(map(len, some))), dtype=np.int64)
                ids[:, 0] = self._start[-1]
                for row, one in enumerate(some):
                    ids[row, 1 : 1 + len(one)] = one
                tokens = torch.from_numpy(ids)
                logits = self.language.logits(tokens[:, :-1]).float()
                losses = torch.nn.functional.cross_entropy(
                    logits.flatten(0, 1), tokens[:, 1:].flatten().to(logits.device), reduction="none"
                )
                told = losses.view(len(some), -1).double().cpu().numpy()
                bits[rows] = [told[row, : len(one)].sum() for row, one in enumerate(some)]
        sums, of = (np.bincount(owners, weights=x, minlength=batch.num_rows) for x in (bits, sizes))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(of > 0, sums / of / np.log(2), np.nan).astype(np.float32)

    def _encode(self, texts: list[str]) -> list[Ids]:
        """Ids without the token that documents begin with."""
        told = (self.language.encode(text) for text in texts)
        start = len(self._start)
        return [np.array(ids[start:] if ids[:start] == self._start else ids, dtype=np.int32) for ids in told]

    def _bytes(self, ids: Ids) -> int:
        """The bytes of text that ids are."""
        return len(self.language.decode(self._start, ids.tolist()).encode())

    def _vocabulary(self) -> int:
        import torch

        with torch.inference_mode():
            return int(self.language.logits(torch.tensor([self._start])).shape[-1])


def _target(config: Perplexity) -> Target:
    return find_target(Path(config.model), config.stage, None if config.tokenizer is None else Path(config.tokenizer))
