"""Held-out loss by source, on rows the model was not trained on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headrace.evaluate.sources import SourceTotals
from headrace.model.micro import micros
from headrace.recipe.training import AttentionSection
from headrace.sequence.batch import read
from headrace.sequence.reader import SequenceReader
from headrace.sequence.stretch import WHOLE, Stretch
from headrace.tokens.engine import Engine


@torch.no_grad()
def held_out_loss(
    model: Any,
    sequence: SequenceReader,
    attention: AttentionSection,
    rows: int | None,
    batch: int,
    device: torch.device,
    sizes: np.ndarray | None = None,
    share: tuple[int, int] = (0, 1),
    summed: Callable[[Tensor], Tensor] = lambda sums: sums,
    stretch: Stretch = WHOLE,
) -> dict[str, Any]:
    """Measure a model on a held-out sequence.

    Every process makes the same number of forward passes, each over its share of the rows.

    Args:
        model: a :class:`~headrace.model.transformer.Transformer`, or something around one.
        sequence: the held-out sequence. Its order is a uniform shuffle, so a prefix is a fair sample.
        attention: as in the model's training.
        rows: the number of rows to read; None for all.
        batch: rows per forward pass.
        device: the model's.
        sizes: from :func:`byte_sizes`, for bits per byte.
        share: which share of the rows is this process's, and of how many.
        summed: sums float64 [3, n] over these processes.
        stretch: the part of its rows that is this process's.

    Returns:
        ``{"rows", "tokens", "loss", "sources": {name: {"loss", "tokens"[, "bits_per_byte"]}}}``, losses in nats per
        token; ``loss`` is None if no token carries loss.
    """
    totals, one = SourceTotals(sequence.sources), torch.ones((), device=device)
    end = len(sequence) if rows is None else min(rows, len(sequence))
    rank, size = share
    for row in range(0, end, batch * size):
        n = min(batch * size, end - row)
        first, stop = row + rank * n // size, row + (rank + 1) * n // size
        part = read(sequence, first, stop, sequence.dtype, attention.positions == "document")
        for micro in micros(part, first, sequence, 1, batch, attention, device, stretch):
            _, losses = micro.forward(model, one)
            assert micro.sources is not None
            known = None if sizes is None else sizes[micro.targets.cpu().numpy()]
            totals.add(micro.sources.cpu().numpy(), losses.double().cpu().numpy(), known)
    totals.replace(summed(torch.from_numpy(totals.sums()).to(device)).cpu().numpy())
    tokens = int(totals.tokens.sum())
    loss = totals.loss if tokens else None
    return {"rows": end, "tokens": tokens, "loss": loss, "sources": totals.by_source()}


def byte_sizes(engine: Engine, size: int) -> np.ndarray:
    """int64[size]: bytes of text per id; 0 for special ids and ids without a token."""
    out = np.zeros(size, dtype=np.int64)
    out[: len(engine.lengths)] = engine.lengths[:size]
    out[engine.special_ids] = 0
    return out
