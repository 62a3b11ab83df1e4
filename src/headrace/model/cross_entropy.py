"""The output matrix and cross-entropy as one function, computed chunk by chunk along with its gradient.

As in Liger Kernel (Hsu et al., 2024), the logits of a batch never exist all at once. Statistics, losses and sums of
gradients are float32: a fused cross-entropy that accumulated in bfloat16 trained measurably worse (OLMo-core 2.0.1).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as fn
from torch import Tensor

from headrace.model.machine import CACHED, slices

# Logits at a time, in the type of the hidden states; but at least those of 512 tokens, because each chunk reads the
# whole output matrix and adds to its whole gradient. 4,096 tokens x 131,072, bfloat16, one core: chunks of 128, 256,
# 512 and 1,024 take 9.2, 8.2, 6.2 and 5.2 s, plain torch 12.2 s.
CHUNK = 1 << 25
LEAST_ROWS = 512

# Of those, logits in float32 at a time on an accelerator, and numbers of the matrix's gradient everywhere.
TILE = 1 << 22


def linear_cross_entropy(
    hidden: Tensor,
    matrix: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    weights: Tensor,
    z_loss: float = 0.0,
    tile: int | None = None,
    cap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The weighted sum of ``logsumexp(logits) - logits[target]`` for ``logits = hidden @ matrix.T + bias``.

    Args:
        hidden: [N, D], floating point; matrix products are done in this type.
        matrix: [V, D], floating point.
        bias: [V] or None.
        targets: int64 [N].
        weights: float32 [N].
        z_loss: coefficient of ``logsumexp(logits) ** 2``, added to each token's loss to keep logits from drifting
            (PaLM: Chowdhery et al., 2022, section 5).
        tile: tokens whose logits exist at a time; None: as many as make 2 ** 25 logits, at least 512.
        cap: logits are ``cap * tanh(logits / cap)`` of these (Gemma 2: Gemma Team, 2024); None: these.

    Returns:
        The weighted sum, a float32 scalar, which can be differentiated once; and float32 [N], the losses without
        weights and z-loss, which cannot. Both are float64 for float64 hidden states.
    """
    count = len(targets)
    extra = _rounded(count) - count if hidden.device.type == "cpu" else 0
    if extra:
        hidden, targets, weights = (
            fn.pad(hidden, (0, 0, 0, extra)),
            fn.pad(targets, (0, extra)),
            fn.pad(weights, (0, extra)),
        )
    total, losses = _LinearCrossEntropy.apply(hidden, matrix, bias, targets, weights, z_loss, tile, cap)
    return total, losses[:count]


def _rounded(count: int) -> int:
    """A number of tokens rounded up to one of eight an octave.

    On a CPU, oneDNN compiles every product for its shape and keeps it: with 700 to 1,500 tokens, another number in each
    batch, a training grew by 20 MB a step (8,192 entries), to 2.9 GB after 120.
    """
    step = 1 << max(0, count.bit_length() - 4)
    return -(-count // step) * step


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        matrix: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        weights: Tensor,
        z_loss: float,
        tile: int | None,
        cap: float | None,
    ) -> tuple[Tensor, Tensor]:
        inputs = (hidden, matrix, bias, targets, weights)
        losses, penalized, gradients = _evaluate(*inputs, z_loss, tile, cap, ctx.needs_input_grad[:3])
        ctx.save_for_backward(*inputs, penalized)
        ctx.z_loss, ctx.tile, ctx.cap, ctx.gradients = z_loss, tile, cap, gradients
        ctx.mark_non_differentiable(losses)
        return torch.dot(penalized, weights.to(penalized.dtype)), losses

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        # Forward's gradients are scaled in place and given away: autograd keeps them without a copy. A second pass
        # computes them again.
        hidden, matrix, bias, targets, weights, penalized = ctx.saved_tensors
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            inputs = (hidden, matrix, bias, targets, weights)
            gradients = _evaluate(*inputs, ctx.z_loss, ctx.tile, ctx.cap, ctx.needs_input_grad[:3])[2]
        scaled = [None if g is None else g.mul_(upstream[0].to(g.dtype)) for g in gradients]
        of_weights = (penalized * upstream[0]).to(weights.dtype) if ctx.needs_input_grad[4] else None
        return (*scaled, None, of_weights, None, None, None)


def _evaluate(
    hidden: Tensor,
    matrix: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    weights: Tensor,
    z_loss: float,
    tile: int | None,
    cap: float | None,
    wanted: tuple[bool, ...],
) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    # Losses [N], the same plus z-loss, and of hidden, matrix and bias the wanted gradients of the weighted sum.
    exact = torch.promote_types(hidden.dtype, torch.float32)
    cast, weights = matrix.to(hidden.dtype), weights.to(exact)
    shift = None if bias is None else bias.to(exact)
    to_hidden = torch.empty_like(hidden) if wanted[0] else None
    to_matrix = torch.zeros_like(matrix, dtype=exact) if wanted[1] else None
    to_bias = torch.zeros_like(shift) if wanted[2] and shift is not None else None
    losses = torch.empty(len(targets), dtype=exact, device=hidden.device)
    penalized = losses if z_loss == 0 else torch.empty_like(losses)
    at_once = CACHED if hidden.device.type == "cpu" else TILE
    for chunk in slices(len(targets), tile or max(LEAST_ROWS, CHUNK // len(matrix))):
        h, target, factor = hidden[chunk], targets[chunk, None], weights[chunk, None].clone()
        logits = h @ cast.T
        for part in slices(len(h), at_once // len(matrix)):
            precise = logits[part].to(exact) if shift is None else logits[part] + shift
            if cap is not None:
                precise = cap * torch.tanh(precise / cap)
            logs = precise.log_softmax(dim=1)
            loss = -logs.gather(1, target[part])
            losses[chunk][part] = loss.squeeze(1)
            # The logits' gradient is factor times their probabilities, less a difference at the target.
            slope = torch.ones_like(loss)
            if z_loss != 0:
                log_total = precise.gather(1, target[part]) + loss
                penalized[chunk][part] = (loss + z_loss * log_total**2).squeeze(1)
                slope += 2 * z_loss * log_total
                factor[part] *= slope
            if not any(wanted):
                continue
            powers = logs.exp_().scatter_(1, target[part], torch.expm1(-loss) + (1 - 1 / slope))
            if cap is not None:
                powers *= 1 - (precise / cap) ** 2
            if to_bias is not None:
                to_bias += (powers * factor[part]).sum(dim=0)
            logits[part] = powers
        # Of each product with it, the smaller operand takes the factor.
        if to_hidden is not None:
            to_hidden[chunk] = (logits @ cast) * factor
        if to_matrix is not None:
            scaled = (h * factor).to(h.dtype)
            for share in slices(len(matrix), TILE // matrix.shape[1]):
                to_matrix[share] += logits[:, share].T @ scaled
        del logits, precise  # in float32 a part of it; or two chunks would exist while the next are multiplied
    of_matrix = None if to_matrix is None else to_matrix.to(matrix.dtype)
    of_bias = None if to_bias is None or bias is None else to_bias.to(bias.dtype)
    return losses, penalized, [to_hidden, of_matrix, of_bias]
