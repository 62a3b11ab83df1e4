"""AdamW (Loshchilov and Hutter, 2019) with groups for weight decay and muP, and its state as named tensors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from headrace.model.transformer import Transformer
from headrace.recipe.training import OptimizerSection

MOMENTS = ("exp_avg", "exp_avg_sq")


class AdamW(torch.optim.AdamW):
    """AdamW over a transformer's parameters, in groups.

    Hidden matrices (learning rate times ``mup.hidden_learning_rate``, weight decay), embedding and head (plain rate,
    weight decay, the embedding's optional), biases and norms (plain rate, no decay), as for CrystalCoder.

    Args:
        model: the model to train; its parameters may be sharded.
        section: the recipe's optimizer section.
    """

    def __init__(self, model: Transformer, section: OptimizerSection) -> None:
        self.names = {parameter: name for name, parameter in model.named_parameters()}
        hidden = {parameter for _, parameter in model.hidden_matrices()}
        decay = section.weight_decay
        groups: dict[Any, list[Tensor]] = {}
        for parameter in self.names:
            if parameter in hidden:
                kind = decay, model.config.mup.hidden_learning_rate
            elif parameter.dim() == 1 or (parameter is model.embedding.weight and not section.decay_embedding):
                kind = 0.0, 1.0
            else:
                kind = decay, 1.0
            # The fused kernel takes tensors that are sharded alike.
            mesh = parameter.device_mesh if isinstance(parameter, DTensor) else None
            groups.setdefault((*kind, mesh), []).append(parameter)
        super().__init__(
            [{"params": found, "weight_decay": rate, "scale": scale} for (rate, scale, _), found in groups.items()],
            lr=section.learning_rate,
            betas=section.betas,
            eps=section.eps,
            fused=True,  # one pass over each tensor, on CPUs too
        )

    def set_learning_rate(self, rate: float) -> None:
        """Set every group's rate in proportion."""
        for group in self.param_groups:
            group["lr"] = rate * group["scale"]

    def named_state(self) -> dict[str, Tensor]:
        """All state as tensors named ``<parameter>/exp_avg``, ``<parameter>/exp_avg_sq`` and ``<parameter>/step``.

        Parameters that have had no step get zeros, which mean the same.
        """
        self._allocate(self.names)
        return {
            f"{name}/{key}": self.state[parameter][key]
            for parameter, name in self.names.items()
            for key in (*MOMENTS, "step")
        }

    def _allocate(self, parameters: Iterable[Tensor]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                # The fused kernel needs the step as a float32 tensor on the parameter's device.
                step = torch.zeros((), dtype=torch.float32, device=parameter.device)
                self.state[parameter] = {
                    "step": step, **{key: torch.zeros_like(parameter, requires_grad=False) for key in MOMENTS}
                }  # fmt: skip
