"""Rotary position embedding (Su et al., 2021), plain or stretched to rows longer than a model was trained on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from headrace.recipe.model import ModelConfig, RotaryScaling


class Rotary:
    """Turns the first ``rotary_dim`` = R dimensions of each head by angles that grow with the position.

    Attributes:
        cos, sin: float32 [T, R / 2] if all rows share their positions, else [B, 1, 1, T, R / 2].

    Args:
        config: the model's configuration.
        positions: int [T] or [B, T].
        across: as for :func:`frequencies`.
    """

    def __init__(
        self, config: ModelConfig, positions: Tensor, across: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self.rotated, self.interleaved = config.rotated, config.rotary_pairs == "interleaved"
        angle = positions.float().unsqueeze(-1) * frequencies(config, positions.device, positions, across)
        angle = angle if positions.dim() == 1 else angle[:, None, None]
        # YaRN multiplies queries and keys by a temperature; here as there it is part of the tables.
        scaling = config.rotary_scaling
        temperature = 1.0 if scaling is None else scaling.temperature
        self.cos, self.sin = angle.cos() * temperature, angle.sin() * temperature

    def __call__(self, x: Tensor) -> Tensor:
        """Turn queries or keys [B, K, H / K, T, E] by their positions."""
        if self.rotated == 0:
            return x
        turned: Tensor = _Turn.apply(x, self.cos, self.sin, self.interleaved)
        return turned


class _Turn(torch.autograd.Function):
    # Its gradient turns back. As eight operations of autograd's own it took 17 ms instead of 9 (4,096 tokens x 384).

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.interleaved = interleaved
        return _turned(x, cos, sin, interleaved)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return _turned(upstream[0], cos, -sin, ctx.interleaved), None, None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    half = cos.shape[-1]
    apart = slice(0, 2 * half, 2), slice(1, 2 * half, 2)
    first, second = apart if interleaved else (slice(half), slice(half, 2 * half))
    precise = torch.promote_types(x.dtype, torch.float32)
    a, b, cos, sin = (part.to(precise) for part in (x[..., first], x[..., second], cos, sin))
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    out[..., first] = (a * cos).addcmul_(b, sin, value=-1)
    out[..., second] = (b * cos).addcmul_(a, sin)
    out[..., 2 * half :] = x[..., 2 * half :]
    return out


def frequencies(
    config: ModelConfig,
    device: torch.device | None = None,
    positions: Tensor | None = None,
    across: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Radians per position of each pair: float32 [R / 2], from 1 down to almost 1 / ``rotary_base``.

    Args:
        config: the model's configuration.
        device: where to compute them.
        positions: int [T] or [B, T], on which dynamic scaling depends; with [B, T] it returns [B, 1, R / 2].
        across: where these are stretches of rows, makes their highest positions, int [] or [B], those of the rows.
    """
    size = config.rotated
    exponent = torch.arange(0, size, 2, device=device, dtype=torch.float32) / max(1, size)
    plain = 1 / config.rotary_base**exponent
    scaling = config.rotary_scaling
    if scaling is None:
        return plain
    if scaling.kind == "dynamic":
        if positions is None:
            return plain
        # Of each row by itself, so that it does not matter which rows share a batch.
        highest = positions.amax(-1) if across is None else across(positions.amax(-1))
        length = (highest + 1)[..., None, None] if positions.dim() == 2 else highest + 1
        stretched = (scaling.factor * length / scaling.original_length - (scaling.factor - 1)).clamp(min=1)
        return 1 / (config.rotary_base * stretched ** (size / max(1, size - 2))) ** exponent
    if scaling.kind == "linear":
        return plain / scaling.factor
    kept = _kept_by_length(plain, scaling) if scaling.kind == "llama3" else _kept_by_index(config, scaling, device)
    return plain * kept + plain / scaling.factor * (1 - kept)


def _kept_by_length(plain: Tensor, scaling: RotaryScaling) -> Tensor:
    """Llama 3.1: how much of each frequency is kept, by how often it turns in the original length."""
    turns = scaling.original_length * plain / (2 * math.pi)
    low, high = scaling.low_turns, scaling.most_turns
    return ((turns - low) / (high - low)).clamp(0, 1)


def _kept_by_index(config: ModelConfig, scaling: RotaryScaling, device: torch.device | None) -> Tensor:
    """YaRN (Peng et al., 2023, section 3.2): the same, linear in the index between two numbers of turns."""

    def index(turns: float) -> float:
        ratio = scaling.original_length / (turns * 2 * math.pi)
        return config.rotated * math.log(ratio) / (2 * math.log(config.rotary_base))

    # The paper's own code rounds these outwards, and so do models trained with it.
    first, last = max(0, math.floor(index(scaling.most_turns))), math.ceil(index(scaling.low_turns))
    last = min(last, config.rotated - 1)
    at = torch.arange(config.rotated // 2, device=device, dtype=torch.float32)
    return 1 - ((at - first) / max(last - first, 0.001)).clamp(0, 1)
