"""A model without multipliers that computes the same: what architectures without muP can hold."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from headrace.model.config import Mup
from headrace.recipe.model import ModelConfig


class Plain:
    """Folds muP's multipliers into the weights, and turns interleaved rotary pairs into halves, exactly.

    Attributes:
        config: the model without multipliers.

    Args:
        config: the model as it is.
    """

    def __init__(self, config: ModelConfig) -> None:
        self._from = config
        self.config = config.model_copy(update={"mup": Mup(), "rotary_pairs": "half"})

    def __call__(self, name: str, tensor: Tensor) -> Tensor:
        """The plain model's tensor of that name.

        Args:
            name: name of a parameter.
            tensor: the model's own.
        """
        config, mup = self._from, self._from.mup
        module, _, _ = name.rpartition(".")
        if name in ("embedding.weight", "positions.weight"):
            return tensor * mup.embedding_multiplier
        if module == "norm":
            # The head reads the norm's output; a tied one is the embedding, which has grown.
            return tensor * (mup.logit_multiplier / (mup.embedding_multiplier if config.tied else 1.0))
        if module.endswith("attention.qkv"):
            groups = tensor.unflatten(0, (config.key_value_heads, -1, config.head_size))
            q, k, v = groups.split((config.heads // config.key_value_heads, 1, 1), dim=1)
            q, k = self._halves(q, 2), self._halves(k, 2)
            return torch.cat((q if config.qk_norm else q * self._attention, k, v), dim=1).flatten(0, 2)
        if module.endswith(("attention.q_norm", "attention.k_norm")):
            return self._halves(tensor, 0) * (self._attention if module.endswith("q_norm") else 1.0)
        return tensor

    @property
    def _attention(self) -> float:
        """What queries are multiplied by, so that dividing scores by the root of the head's size is enough."""
        return 1 / math.sqrt(self._from.head_size) if self._from.mup.attention == "d" else 1.0

    def _halves(self, tensor: Tensor, dim: int) -> Tensor:
        """The dimensions of a head so ordered that pairs 2i, 2i + 1 become i, i + R / 2; R are rotated."""
        if self._from.rotary_pairs == "half":
            return tensor
        rotated, size = self._from.rotated, self._from.head_size
        order = [*range(0, rotated, 2), *range(1, rotated, 2), *range(rotated, size)]
        return tensor.index_select(dim, torch.tensor(order, device=tensor.device))
