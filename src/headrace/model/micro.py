"""A step's rows as tensors: this process's share of the batch, in micro-batches.

Every process makes the same number of forward passes, as sharded weights are gathered together; a process without rows
of its own passes one row whose targets carry no loss. Where several processes share rows, each has a stretch of them;
targets are shifted before rows are cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headrace.recipe.training import AttentionSection
from headrace.sequence.batch import Batch
from headrace.sequence.reader import SequenceReader
from headrace.sequence.stretch import WHOLE, Stretch
from headrace.sequence.target_sources import target_sources


@dataclass(frozen=True)
class Micro:
    """A micro-batch on its device; N of its B * T targets carry loss. T positions are all of a row of L, or a stretch.

    Attributes:
        tokens: int64 [B, T].
        positions: int32 [B, T] or int64 [T], or None to count through each row.
        segments: int32 [B, L], or None to attend to the whole row; L is padded so that it can be cut.
        picked: int64 [N], the flat positions whose targets carry loss.
        targets: int64 [N].
        sources: int64 [N], the source of each target; None if nobody asked.
    """

    tokens: Tensor
    positions: Tensor | None
    segments: Tensor | None
    picked: Tensor
    targets: Tensor
    sources: Tensor | None = None

    @staticmethod
    def of(
        batch: Batch,
        attention: AttentionSection,
        device: torch.device,
        sources: np.ndarray | None = None,
        stretch: Stretch = WHOLE,
    ) -> Micro:
        """Convert a loader's batch to tensors. Rows with a single document get no segments, and so need no mask.

        Args:
            batch: B rows.
            attention: what a token can attend to.
            device: where to.
            sources: int [B, L], the source of each target.
            stretch: of the rows.
        """
        tokens = batch.tokens.astype(np.int64)
        isolated = attention.documents and bool((batch.segment_ids != batch.segment_ids[:, :1]).any())
        positions = stretch.cut(batch.positions) if attention.positions == "document" else None
        if positions is None and not stretch.whole:
            positions = stretch.cut(np.arange(batch.loss.shape[1])[None])[0]
        picked = np.flatnonzero(stretch.cut(batch.loss))
        parts: list[np.ndarray | None] = [
            stretch.cut(tokens[:, :-1]),
            positions,
            stretch.padded(batch.segment_ids) if isolated else None,
            picked,
            stretch.cut(tokens[:, 1:]).flatten()[picked],
            None if sources is None else stretch.cut(sources).flatten()[picked].astype(np.int64),
        ]
        tensors = (None if part is None else torch.from_numpy(np.ascontiguousarray(part)) for part in parts)
        return Micro(*(None if part is None else part.to(device, non_blocking=True) for part in tensors))  # type: ignore[arg-type]

    def forward(self, model: Any, weights: Tensor, z_loss: float = 0.0) -> tuple[Tensor, Tensor]:
        """The weighted sum of the losses, differentiable, and float32 [N]: each target's loss in nats.

        Args:
            model: a :class:`~headrace.model.transformer.Transformer`, or something around one.
            weights: a float32 scalar for all targets.
            z_loss: as in :meth:`~headrace.model.transformer.Transformer.forward`.
        """
        return model(
            self.tokens,
            self.positions,
            self.segments,
            picked=self.picked,
            targets=self.targets,
            weights=weights.expand(len(self.targets)),
            z_loss=z_loss,
        )


def passes(rows: int, processes: int, micro_batch: int | None) -> int:
    """Forward passes of every process for a batch."""
    most = -(-rows // processes)
    return -(-most // (micro_batch or most))


def micros(
    batch: Batch,
    first: int,
    sequence: SequenceReader,
    count: int,
    size: int,
    attention: AttentionSection,
    device: torch.device,
    stretch: Stretch = WHOLE,
) -> Iterator[Micro]:
    """A process's share of a batch as ``count`` micro-batches.

    Args:
        batch: its rows; may be none.
        first: the number of the first of them in the sequence.
        sequence: where they come from.
        count: from :func:`passes`.
        size: rows of a micro-batch.
        attention: what a token can attend to.
        device: where to.
        stretch: of the rows.
    """
    rows = len(batch.tokens)
    sources = target_sources(sequence, first, first + rows)
    arrays = tuple(batch)
    for i in range(count):
        part = slice(i * size, min((i + 1) * size, rows))
        if part.start < rows:
            yield Micro.of(Batch(*(array[part] for array in arrays)), attention, device, sources[part], stretch)
        else:
            yield _without_targets(stretch, sequence.seq_len, device)


def _without_targets(stretch: Stretch, length: int, device: torch.device) -> Micro:
    none = torch.zeros(0, dtype=torch.int64, device=device)
    row = torch.zeros(1, stretch.length(length), dtype=torch.int64, device=device)
    return Micro(row, None if stretch.whole else row[0], None, none, none, none)
