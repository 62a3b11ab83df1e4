"""Held-out loss by source, on rows the model was not trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from headrace.evaluate.sources import SourceTotals
from headrace.model.micro import Micro
from headrace.model.transformer import Transformer
from headrace.recipe.training import AttentionSection
from headrace.sequence.loader import Batch, Loader
from headrace.sequence.reader import SequenceReader
from headrace.sequence.target_sources import target_sources
from headrace.tokens.engine import Engine


@torch.no_grad()
def held_out_loss(
    model: Transformer,
    sequence: SequenceReader,
    attention: AttentionSection,
    rows: int | None,
    batch: int,
    engine: Engine | None = None,
) -> dict[str, Any]:
    """Measure a model on a held-out sequence.

    Args:
        model: the model, on its device.
        sequence: the held-out sequence. Its order is a uniform shuffle, so a prefix is a fair sample.
        attention: as in the model's training.
        rows: the number of rows to read; None for all.
        batch: rows per forward pass.
        engine: the tokenizer, for bits per byte.

    Returns:
        ``{"rows", "tokens", "loss", "sources": {name: {"loss", "tokens"[, "bits_per_byte"]}}}``, losses in nats per
        token; ``loss`` is None if no token carries loss.
    """
    device = model.embedding.weight.device
    totals = SourceTotals(sequence.sources)
    sizes = None if engine is None else byte_sizes(engine, model.config.vocab_size or 0)
    loader = Loader(sequence, batch, positions=attention.positions, drop_last=False)
    end = len(sequence) if rows is None else min(rows, len(sequence))
    for row in range(0, end, batch):
        part = Batch(*(array[: end - row] for array in loader.at(row)))
        _, losses = Micro.of(part, attention, device).forward(model, torch.ones((), device=device))
        sources = target_sources(sequence, row, row + len(part.tokens))[part.loss]
        known = None if sizes is None else sizes[part.tokens[:, 1:][part.loss]]
        totals.add(sources, losses.double().cpu().numpy(), known)
    tokens = int(totals.tokens.sum())
    loss = totals.loss if tokens else None
    return {"rows": end, "tokens": tokens, "loss": loss, "sources": totals.by_source()}


def byte_sizes(engine: Engine, size: int) -> np.ndarray:
    """int64[size]: bytes of text per id; 0 for special ids and ids without a token."""
    out = np.zeros(size, dtype=np.int64)
    out[: len(engine.lengths)] = engine.lengths[:size]
    out[engine.special_ids] = 0
    return out
