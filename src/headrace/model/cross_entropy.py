"""The output matrix and cross-entropy as one function, computed chunk by chunk along with its gradient.

As in Liger Kernel (Hsu et al., 2024), the logits of a batch never exist all at once. Statistics, losses and the
matrix's gradient are float32: a fused cross-entropy that accumulated in bfloat16 trained measurably worse (OLMo-core
2.0.1).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Bytes of one chunk's float32 logits. 4,096 tokens x 8,192, bfloat16, two cores: 1, 2, 4, 8, 16, 32, 64 MB take 195,
# 140, 109, 101, 105, 145, 166 ms.
CHUNK_BYTES = 8 << 20


class LinearCrossEntropy(torch.autograd.Function):
    """``weights * (logsumexp(logits) - logits[target])`` for ``logits = hidden @ matrix.T + bias``.

    Only the first output (the weighted sum) is differentiable.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, matrix: Tensor, bias: Tensor | None, targets: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The weighted sum, and each token's loss.

        Args:
            ctx: autograd's context.
            hidden: [N, D], float32 or bfloat16; matrix products are done in this type.
            matrix: float32 [V, D].
            bias: float32 [V] or None.
            targets: int64 [N].
            weights: float32 [N].

        Returns:
            A float32 scalar, and float32 [N] of unweighted losses.
        """
        need_hidden, need_matrix, need_bias = ctx.needs_input_grad[:3]
        rows = max(1, CHUNK_BYTES // (4 * matrix.shape[0]))
        cast = matrix.to(hidden.dtype)
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        grad_matrix = torch.zeros_like(matrix) if need_matrix else None
        grad_bias = torch.zeros_like(bias) if need_bias and bias is not None else None
        losses = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(targets), rows):
            part = slice(start, start + rows)
            h, t = hidden[part], targets[part]
            logits = (h @ cast.T).float()
            if bias is not None:
                logits += bias
            logits -= logits.amax(dim=-1, keepdim=True)
            at_target = logits.gather(1, t[:, None]).squeeze(1)
            total = logits.exp_().sum(dim=-1)
            losses[part] = total.log() - at_target
            if not (need_hidden or need_matrix):
                continue
            logits *= (weights[part] / total)[:, None]
            logits[torch.arange(len(t), device=t.device), t] -= weights[part]
            gradient = logits.to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(gradient, cast, out=grad_hidden[part])
            if grad_matrix is not None:
                grad_matrix += gradient.T @ h
            if grad_bias is not None:
                grad_bias += logits.sum(dim=0)
        ctx.gradients = (grad_hidden, grad_matrix, grad_bias)
        ctx.mark_non_differentiable(losses)
        return torch.dot(losses, weights), losses

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients computed in :meth:`forward`, times the gradient of the sum."""
        scaled = tuple(None if g is None else g.mul_(upstream[0].to(g.dtype)) for g in ctx.gradients)
        return (*scaled, None, None)
