"""AdamW (Loshchilov and Hutter, 2019) with groups for weight decay and muP, and its state as named tensors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from headrace.model.transformer import Transformer
from headrace.recipe.training import OptimizerSection

MOMENTS = ("exp_avg", "exp_avg_sq")


class AdamW(torch.optim.AdamW):
    """AdamW over a transformer's parameters, in three groups.

    Hidden matrices (learning rate times ``mup.hidden_learning_rate``, weight decay), embedding and output matrices
    (plain rate, weight decay), biases and norms (plain rate, no decay), as for CrystalCoder.

    Args:
        model: the model to train.
        section: the recipe's optimizer section.
    """

    def __init__(self, model: Transformer, section: OptimizerSection) -> None:
        self.names = {parameter: name for name, parameter in model.named_parameters()}
        hidden = [parameter for _, parameter in model.hidden_matrices()]
        inner = set(hidden)
        matrices = [p for p in model.parameters() if p.dim() == 2 and p not in inner]
        vectors = [p for p in model.parameters() if p.dim() == 1]
        decay, scale = section.weight_decay, model.config.mup.hidden_learning_rate
        groups = [
            {"params": hidden, "weight_decay": decay, "scale": scale},
            {"params": matrices, "weight_decay": decay if section.decay_embedding else 0.0, "scale": 1.0},
            {"params": vectors, "weight_decay": 0.0, "scale": 1.0},
        ]
        super().__init__(
            [group for group in groups if group["params"]],
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
        """All state as tensors named ``<parameter>/exp_avg``, ``<parameter>/exp_avg_sq`` and ``<parameter>/step``."""
        return {
            f"{name}/{key}": self.state[parameter][key]
            for parameter, name in self.names.items()
            if parameter in self.state
            for key in (*MOMENTS, "step")
        }

    def load_named_state(self, tensors: dict[str, Tensor]) -> None:
        """Load state from :meth:`named_state`. Parameters without state start fresh.

        Raises:
            ValueError: a tensor's shape differs from its parameter's.
        """
        for parameter, name in self.names.items():
            if f"{name}/step" not in tensors:
                continue
            state = {key: tensors[f"{name}/{key}"] for key in (*MOMENTS, "step")}
            for key in MOMENTS:
                if state[key].shape != parameter.shape:
                    raise ValueError(f"{name}/{key} is {list(state[key].shape)}, expected {list(parameter.shape)}")
            self.state[parameter] = {key: _placed(value, parameter, key) for key, value in state.items()}


def _placed(value: Tensor, parameter: nn.Parameter, key: str) -> Tensor:
    # The fused kernel needs the step as a float32 tensor on the parameter's device.
    return value.to(parameter.device, torch.float32 if key == "step" else parameter.dtype, copy=True)
