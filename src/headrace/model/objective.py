"""The objective: cross-entropy summed over a batch's targets that carry loss.

Dividing each micro-batch by its own number of targets gives more weight to targets in sparse micro-batches
(transformers issue 34191). Here the caller passes the weight, one over the number of targets in the whole step, so that
accumulation over micro-batches equals one large batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from headrace.model.cross_entropy import LinearCrossEntropy
from headrace.model.transformer import Transformer
from headrace.recipe.training import AttentionSection
from headrace.sequence.loader import Batch


@dataclass(frozen=True)
class Micro:
    """A micro-batch on its device; N of its B * T targets carry loss.

    Attributes:
        tokens: int64 [B, T].
        positions: int32 [B, T], or None to count through each row.
        segments: int32 [B, T], or None to attend to the whole row.
        picked: int64 [N], the flat positions whose targets carry loss.
        targets: int64 [N].
    """

    tokens: torch.Tensor
    positions: torch.Tensor | None
    segments: torch.Tensor | None
    picked: torch.Tensor
    targets: torch.Tensor

    @staticmethod
    def of(batch: Batch, attention: AttentionSection, device: torch.device) -> Micro:
        """Convert a loader's batch to tensors. Rows with a single document get no segments, and so need no mask."""
        tokens = torch.from_numpy(batch.tokens.astype(np.int64)).to(device)
        run_isolated = attention.documents and bool((batch.segment_ids != batch.segment_ids[:, :1]).any())
        again = attention.positions == "document"
        picked = torch.from_numpy(np.flatnonzero(batch.loss)).to(device)
        return Micro(
            tokens[:, :-1],
            torch.from_numpy(batch.positions).to(device) if again else None,
            torch.from_numpy(batch.segment_ids).to(device) if run_isolated else None,
            picked,
            tokens[:, 1:].flatten()[picked],
        )


def summed_loss(
    model: Transformer, micro: Micro, weight: float, hidden: Callable[..., torch.Tensor] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of the targets that carry it.

    Args:
        model: the model.
        micro: the micro-batch.
        weight: weight of each target: for training, one over the number of targets in the whole step.
        hidden: the model's compiled ``hidden``, if any.

    Returns:
        The weighted sum, differentiable, and float32 [N]: each target's loss in nats.
    """
    states = (hidden or model.hidden)(micro.tokens, micro.positions, micro.segments)
    weights = torch.full(micro.targets.shape, weight, dtype=torch.float32, device=micro.targets.device)
    flat = states.flatten(0, 1)
    chosen = flat if len(micro.picked) == len(flat) else flat[micro.picked]
    return LinearCrossEntropy.apply(chosen, model.output_weight, model.output_bias, micro.targets, weights)
