"""A step's rows as tensors: this process's share of the batch, in micro-batches.

Every process makes the same number of forward passes, as sharded weights are gathered together; a process without rows
of its own passes one row whose targets carry no loss.
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
from headrace.sequence.target_sources import target_sources


@dataclass(frozen=True)
class Micro:
    """A micro-batch on its device; N of its B * T targets carry loss.

    Attributes:
        tokens: int64 [B, T].
        positions: int32 [B, T], or None to count through each row.
        segments: int32 [B, T], or None to attend to the whole row.
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
    def of(batch: Batch, attention: AttentionSection, device: torch.device, sources: np.ndarray | None = None) -> Micro:
        """Convert a loader's batch to tensors. Rows with a single document get no segments, and so need no mask.

        Args:
            batch: B rows.
            attention: what a token can attend to.
            device: where to.
            sources: int [B, T], the source of each target.
        """
        tokens = torch.from_numpy(batch.tokens.astype(np.int64))
        isolated = attention.documents and bool((batch.segment_ids != batch.segment_ids[:, :1]).any())
        picked = torch.from_numpy(np.flatnonzero(batch.loss))
        parts: list[Tensor | None] = [
            tokens[:, :-1],
            torch.from_numpy(np.ascontiguousarray(batch.positions)) if attention.positions == "document" else None,
            torch.from_numpy(batch.segment_ids) if isolated else None,
            picked,
            tokens[:, 1:].flatten()[picked],
            None if sources is None else torch.from_numpy(sources.flatten().astype(np.int64))[picked],
        ]
        return Micro(*(None if part is None else part.to(device, non_blocking=True) for part in parts))  # type: ignore[arg-type]

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
    """
    rows = len(batch.tokens)
    sources = target_sources(sequence, first, first + rows)
    arrays = tuple(batch)
    for i in range(count):
        part = slice(i * size, min((i + 1) * size, rows))
        if part.start < rows:
            yield Micro.of(Batch(*(array[part] for array in arrays)), attention, device, sources[part])
        else:
            yield _without_targets(sequence.seq_len, device)


def _without_targets(length: int, device: torch.device) -> Micro:
    none = torch.zeros(0, dtype=torch.int64, device=device)
    return Micro(torch.zeros(1, length, dtype=torch.int64, device=device), None, None, none, none, none)
