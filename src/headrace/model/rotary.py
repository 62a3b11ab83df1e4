"""Rotary position embedding (Su et al., 2021), plain or stretched to rows longer than a model was trained on."""

from __future__ import annotations

import math

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
    """

    def __init__(self, config: ModelConfig, positions: Tensor) -> None:
        self.rotated, self.interleaved = config.rotated, config.rotary_pairs == "interleaved"
        angle = positions.float().unsqueeze(-1) * frequencies(config, positions.device)
        angle = angle if positions.dim() == 1 else angle[:, None, None]
        # YaRN multiplies queries and keys by a temperature; here as there it is part of the tables.
        scaling = config.rotary_scaling
        temperature = 1.0 if scaling is None else scaling.temperature
        self.cos, self.sin = angle.cos() * temperature, angle.sin() * temperature

    def __call__(self, x: Tensor) -> Tensor:
        """Turn queries or keys [B, K, H / K, T, E] by their positions."""
        if self.rotated == 0:
            return x
        turned, rest = x[..., : self.rotated], x[..., self.rotated :]
        if self.interleaved:
            a, b = turned.unflatten(-1, (-1, 2)).unbind(-1)
            turned = torch.stack((a * self.cos - b * self.sin, a * self.sin + b * self.cos), dim=-1).flatten(-2)
        else:
            a, b = turned.chunk(2, dim=-1)
            turned = torch.cat((a * self.cos - b * self.sin, a * self.sin + b * self.cos), dim=-1)
        turned = turned.to(x.dtype)
        return turned if rest.shape[-1] == 0 else torch.cat((turned, rest), dim=-1)


def frequencies(config: ModelConfig, device: torch.device | None = None) -> Tensor:
    """Radians per position of each pair: float32 [R / 2], from 1 down to almost 1 / ``rotary_base``."""
    size = config.rotated
    exponent = torch.arange(0, size, 2, device=device, dtype=torch.float32) / max(1, size)
    plain = 1 / config.rotary_base**exponent
    scaling = config.rotary_scaling
    if scaling is None:
        return plain
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
