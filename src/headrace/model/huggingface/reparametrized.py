"""The same function in other parameters: with other multipliers, and rotary pairs in another order."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from headrace.recipe.model import ModelConfig


@dataclass(frozen=True)
class Reparametrized:
    """A model that differs in ``mup`` and ``rotary_pairs`` alone, and computes the same.

    Attributes:
        own: the model.
        other: what it becomes.
    """

    own: ModelConfig
    other: ModelConfig

    def __call__(self, name: str, tensor: Tensor) -> Tensor:
        """The other model's tensor of a name.

        Args:
            name: name of a parameter.
            tensor: the model's own.
        """
        config, mup, other = self.own, self.own.mup, self.other.mup
        embedding = mup.embedding_multiplier / other.embedding_multiplier
        module, _, _ = name.rpartition(".")
        if name in ("embedding.weight", "positions.weight"):
            return tensor * embedding
        if module == "norm":
            # The head reads the norm's output; a tied one is the embedding, which has grown.
            return tensor * (mup.logit_multiplier / other.logit_multiplier / (embedding if config.tied else 1.0))
        if module.endswith("attention.qkv"):
            groups = tensor.unflatten(0, (config.key_value_heads, -1, config.head_size))
            q, k, v = groups.split((config.heads // config.key_value_heads, 1, 1), dim=1)
            q, k = self._paired(q, 2), self._paired(k, 2)
            return torch.cat((q if config.qk_norm else q * self._attention, k, v), dim=1).flatten(0, 2)
        if module.endswith(("attention.q_norm", "attention.k_norm")):
            return self._paired(tensor, 0) * (self._attention if module.endswith("q_norm") else 1.0)
        return tensor

    @property
    def _attention(self) -> float:
        """What queries are multiplied by."""
        root = math.sqrt(self.own.head_size)
        divisors = {"d": root * root, "sqrt_d": root}
        return divisors[self.other.mup.attention] / divisors[self.own.mup.attention]

    def _paired(self, tensor: Tensor, dim: int) -> Tensor:
        """The dimensions of a head in the other order; R are rotated.

        Interleaved pairs are 2i, 2i + 1; halves i, i + R / 2.
        """
        if self.own.rotary_pairs == self.other.rotary_pairs:
            return tensor
        rotated = self.own.rotated
        order = torch.arange(rotated).view(-1, 2).T if self.own.rotary_pairs == "interleaved" else (
            torch.arange(rotated).view(2, -1).T
        )  # fmt: skip
        order = torch.cat((order.flatten(), torch.arange(rotated, self.own.head_size)))
        return tensor.index_select(dim, order.to(tensor.device))
