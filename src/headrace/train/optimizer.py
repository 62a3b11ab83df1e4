"""What updates a model's weights: AdamW, or Muon for its hidden matrices and AdamW for the rest; state by name."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import _compute_local_shape_and_global_offset
from torch.optim._muon import _adjust_lr, _zeropower_via_newtonschulz

from headrace.model.transformer import Transformer
from headrace.recipe.training import OptimizerSection
from headrace.train.offload import Twins, local


class Optimizer:
    """AdamW (Loshchilov and Hutter, 2019) or Muon over a transformer's parameters, in groups.

    Hidden matrices have weight decay and a learning rate scaled for muP; embedding and head the plain rate and weight
    decay (the embedding's optional); biases and norms the plain rate and no decay, as for CrystalCoder. Muon updates
    hidden matrices alone; the rest then has its own share of the rate.

    Args:
        model: the model to train; its parameters may be sharded.
        section: the recipe's optimizer section; for AdamW if ``offload``.
        offload: keep the state in host memory, and update the weights there.

    Attributes:
        names: each parameter's name.
        parts: torch's optimizers, which share the parameters.
        twins: the parameters that are updated in the place of the model's, if these are others.
    """

    def __init__(self, model: Transformer, section: OptimizerSection, offload: bool = False) -> None:
        self.names = {parameter: name for name, parameter in model.named_parameters()}
        hidden = {parameter for _, parameter in model.hidden_matrices()}
        self.twins = Twins(self.names) if offload else None
        self._updated: dict[Tensor, Tensor] = dict(self.twins.of) if self.twins else {one: one for one in self.names}
        muon = section.kind == "muon"
        rest = section.other_learning_rate if muon else 1.0
        matrices: list[Tensor] = []
        groups: dict[Any, list[Tensor]] = {}
        for parameter in self.names:
            if muon and parameter in hidden and parameter.dim() == 2:
                matrices.append(parameter)
                continue
            if parameter in hidden:
                kind = section.weight_decay, model.config.mup.hidden_learning_rate
            elif parameter.dim() == 1 or (parameter is model.embedding.weight and not section.decay_embedding):
                kind = 0.0, rest
            else:
                kind = section.weight_decay, rest
            # The fused kernel takes tensors that are sharded alike.
            updated = self._updated[parameter]
            mesh = updated.device_mesh if isinstance(updated, DTensor) else None
            groups.setdefault((*kind, mesh), []).append(updated)
        adamw = torch.optim.AdamW(
            [{"params": found, "weight_decay": rate, "scale": scale} for (rate, scale, _), found in groups.items()],
            lr=section.learning_rate,
            betas=section.betas,
            eps=section.eps,
            fused=True,  # one pass over each tensor, on CPUs too
        )
        self.parts: list[torch.optim.Optimizer] = [adamw]
        if muon:
            # AdamW's update grows as the width, Muon's as its root, measured by its largest singular value (Yang et
            # al., A Spectral Condition for Feature Learning, 2023): muP's 1 / width becomes its root.
            scale = math.sqrt(model.config.mup.hidden_learning_rate)
            about: dict[str, Any] = {
                "lr": section.learning_rate,
                "weight_decay": section.weight_decay,
                "momentum": section.momentum,
            }
            self.parts.append(Muon([{"params": matrices, "scale": scale}], **about, adjust_lr_fn="match_rms_adamw"))

    @property
    def groups(self) -> list[dict[str, Any]]:
        """torch's groups of parameters."""
        return [group for part in self.parts for group in part.param_groups]

    def set_learning_rate(self, rate: float) -> None:
        """Set every group's rate in proportion."""
        for group in self.groups:
            group["lr"] = rate * group["scale"]

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self.names:
            parameter.grad = None

    def step(self) -> None:
        """Update all parameters that have a gradient."""
        if self.twins is not None:
            self.twins.take()
        for part in self.parts:
            part.step()
        if self.twins is not None:
            self.twins.give()

    def forget(self) -> None:
        """Begin with a new state."""
        for part in self.parts:
            part.state.clear()

    def named_state(self) -> dict[str, Tensor]:
        """All state as tensors: ``<parameter>/exp_avg``, ``/exp_avg_sq`` and ``/step`` of what AdamW updates,
        ``<parameter>/momentum_buffer`` of what Muon does.

        Parameters that have had no step get zeros, which mean the same.
        """
        found = {}
        of: dict[Any, Any] = {updated: parameter for parameter, updated in self._updated.items()}
        for part in self.parts:
            moments = ("momentum_buffer",) if isinstance(part, Muon) else ("exp_avg", "exp_avg_sq")
            for updated in (one for group in part.param_groups for one in group["params"]):
                state = part.state[updated]
                if not state:
                    state.update({key: torch.zeros_like(updated, requires_grad=False) for key in moments})
                    if not isinstance(part, Muon):
                        # The fused kernel needs the step as a float32 tensor on the parameter's device.
                        state["step"] = torch.zeros((), dtype=torch.float32, device=updated.device)
                for key, value in state.items():
                    placed = value if self.twins is None else self.twins.placed(of[updated], value)
                    found[f"{self.names[of[updated]]}/{key}"] = placed
        return found


class Muon(torch.optim.Muon):
    """torch's Muon (Jordan et al., 2024; Liu et al., Muon is Scalable for LLM Training, 2025), also for shards.

    A matrix is orthogonalized as a whole. Of those that are sharded over all processes each process gets its share of
    whole matrices, and gives the others theirs of the result: no work is done twice.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            parameters = [one for one in group["params"] if one.grad is not None]
            momentum, updates = group["momentum"], []
            for parameter in parameters:
                state, gradient = self.state[parameter], local(parameter.grad)
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)
                mean = local(state["momentum_buffer"]).lerp_(gradient, 1 - momentum)
                updates.append(gradient.lerp(mean, momentum).bfloat16())
            settings = group["ns_coefficients"], group["ns_steps"], group["eps"]
            for parameter, update in zip(parameters, orthogonalized(parameters, updates, settings), strict=True):
                rate = _adjust_lr(group["lr"], group["adjust_lr_fn"], parameter.shape)
                local(parameter).mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)


def orthogonalized(parameters: list[Tensor], updates: list[Tensor], settings: Any) -> list[Tensor]:
    """The nearest orthogonal matrices, almost (Newton-Schulz iteration).

    Args:
        parameters: matrices that are all whole, or all sharded over all processes.
        updates: bfloat16, what this process has of a matrix of each one's shape.
        settings: coefficients, number and epsilon of the iteration.

    Returns:
        bfloat16, of the shapes of ``updates``.
    """
    if not parameters or not isinstance(parameters[0], DTensor):
        return [_zeropower_via_newtonschulz(update, *settings) for update in updates]
    found = list(updates)
    # Rounds of as many matrices as there are processes, of about one size.
    order = sorted(range(len(updates)), key=lambda i: -parameters[i].numel())
    size, rank = dist.get_world_size(), dist.get_rank()
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        mine = parameters[chosen[rank]] if rank < len(chosen) else None
        parts = [] if mine is None else [_part(mine, process) for process in range(size)]
        incoming = [math.prod(end - begin for begin, end in part) for part in parts] or [0] * size
        outgoing = [updates[i].numel() for i in chosen] + [0] * (size - len(chosen))
        sent = torch.cat([updates[i].flatten() for i in chosen])
        received = sent.new_empty(sum(incoming))
        dist.all_to_all_single(received, sent, incoming, outgoing)
        if mine is not None:
            whole = sent.new_empty(mine.shape)
            places = [tuple(slice(*ends) for ends in part) for part in parts]
            for place, piece in zip(places, received.split(incoming), strict=True):
                whole[place] = piece.view(whole[place].shape)
            whole = _zeropower_via_newtonschulz(whole, *settings)
            received = torch.cat([whole[place].flatten() for place in places])
        dist.all_to_all_single(sent, received, outgoing, incoming)
        for i, piece in zip(chosen, sent.split(outgoing[: len(chosen)]), strict=True):
            found[i] = piece.view(updates[i].shape)
    return found


def _part(parameter: Any, process: int) -> list[tuple[int, int]]:
    """Where a process's part of a matrix begins and ends in each dimension."""
    mesh = parameter.device_mesh
    at = (mesh.mesh == process).nonzero()[0].tolist()
    sizes, starts = _compute_local_shape_and_global_offset(parameter.shape, mesh.shape, at, parameter.placements)
    return [(start, start + size) for start, size in zip(starts, sizes, strict=True)]
