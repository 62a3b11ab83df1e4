"""Scaled dot-product attention: causal, optionally within documents, using the fastest method for the device."""

from __future__ import annotations

import torch
import torch.nn.functional as fn
from torch import Tensor

KeyValues = tuple[Tensor, Tensor]
"""A layer's keys and values so far, each [B, K, S, E]."""

# Query rows per block of explicit attention on a CPU. Forward and backward of 8 rows x 4 heads x 512 x 64 on two cores
# with AVX-512 bfloat16: blocks of 64, 128, 256, 512 take 25, 18, 14, 28 ms, torch's fused kernel 44 to 52 ms (float32:
# 41, 35, 36, 87 and 50 ms).
CPU_BLOCK = 256

# Beyond this many positions, a CPU uses the fused kernel too: the explicit method keeps T * T / 2 weights per head for
# the backward pass.
CPU_EXPLICIT = 2048


def causal_bias(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The bias added to scores so that a position sees only itself and what precedes it: [T, T] of 0 and -inf."""
    return torch.full((size, size), float("-inf"), dtype=dtype, device=device).triu_(1)


def document_bias(segments: Tensor, dtype: torch.dtype) -> Tensor:
    """As :func:`causal_bias`, but only where segment numbers are equal.

    Args:
        segments: int [B, T].
        dtype: dtype of the scores.

    Returns:
        [B, 1, T, T].
    """
    run_isolated = segments[:, :, None] != segments[:, None, :]
    bias = causal_bias(segments.shape[1], dtype, segments.device)
    return bias.expand(len(segments), -1, -1).masked_fill(run_isolated, float("-inf")).unsqueeze(1)


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None) -> Tensor:
    """Causal attention of T queries over the last T of S >= T keys.

    Args:
        q: [B, H, T, E].
        k: [B, K, S, E], H a multiple of K (grouped-query attention: each key head serves H / K query heads).
        v: as ``k``.
        scale: factor applied to the scores.
        bias: from :func:`document_bias`, for T = S; None: causal.

    Returns:
        [B, H, T, E].
    """
    if k.shape[1] < q.shape[1]:
        group = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    T = q.shape[2]
    if T == 1:  # the newest token sees every key
        return fn.scaled_dot_product_attention(q, k, v, scale=scale)
    if q.device.type == "cpu" and T <= CPU_EXPLICIT:
        return _by_blocks(q * scale, k, v, causal_bias(T, q.dtype, q.device) if bias is None else bias)
    return fn.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=bias is None, scale=scale)


def _by_blocks(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    # Each block of queries uses only the keys up to its own end: about half of the products.
    out = []
    for start in range(0, q.shape[2], CPU_BLOCK):
        end = min(start + CPU_BLOCK, q.shape[2])
        scores = q[:, :, start:end] @ k[:, :, :end].transpose(-1, -2) + bias[..., start:end, :end]
        out.append(scores.softmax(dim=-1) @ v[:, :, :end])
    return out[0] if len(out) == 1 else torch.cat(out, dim=2)
