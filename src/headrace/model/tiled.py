"""A map over tokens computed a tile at a time, forward and backward (ALST: Bekman et al., 2025).

Of a feed-forward layer at most one tile's activations exist. Its input alone is kept; in the backward pass each tile is
computed again and differentiated. The weights are explicit inputs: autograd sees one gradient of each, the sum over all
tiles in float32, whoever shards, replicates, splits or freezes them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from headrace.model.machine import slices

_OWN = ("weight", "bias")  # parameters of a linear map
_at_work = threading.local()


@torch.compiler.disable  # its graph is made in the backward pass, which Dynamo does not follow
def tiled(function: Callable[..., Tensor], x: Tensor, parameters: Sequence[Tensor], tile: int) -> Tensor:
    """``function(x, *parameters)``, where no more than ``tile`` tokens of each row are computed at a time.

    Args:
        function: maps each token by itself, [B, t, D] -> [B, t, D'] for any t, and draws nothing. It is called within
            the autocast that this was.
        x: [B, T, D], floating point.
        parameters: all that the result is to be differentiated by, besides ``x``; leaves or not, DTensors or not, some
            of them frozen.
        tile: how many. The number of calls follows from it and T alone, so it is the same in all processes.

    Returns:
        [B, T, D'], which can be differentiated once; equal to the whole within rounding.
    """
    if tile >= x.shape[1]:
        return function(x, *parameters)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *parameters)):
        held = _Held.apply(x, *parameters)
        made: Tensor = _Tiled.apply(function, held.grad_fn, tile, held, *parameters)
        return made
    return _forward(function, x, parameters, tile)


def busy() -> bool:
    """Whether this thread computes a tile in a forward pass: nothing of it is worth keeping."""
    return getattr(_at_work, "depth", 0) > 0


class _Held(torch.autograd.Function):
    # Keeps what backward needs, before the forward pass: when a checkpointed block is computed again, torch stops at
    # the last tensor kept, and so the feed-forward at the block's end is not computed a third time.
    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(x, *parameters)
        return x.view_as(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        return (*upstream, *(None for _ in ctx.needs_input_grad[1:]))


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, function: Callable[..., Tensor], held: Any, tile: int, x: Tensor, *parameters: Tensor
    ) -> Tensor:
        ctx.function, ctx.held, ctx.tile = function, held, tile
        kind = x.device.type
        ctx.autocast = {
            "device_type": kind,
            "enabled": torch.is_autocast_enabled(kind),
            "dtype": torch.get_autocast_dtype(kind),
            "cache_enabled": False,  # it would keep a graph from one tile to the next
        }
        return _forward(function, x, parameters, tile)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.held.saved_tensors
        _, _, _, into_x, *wanted = ctx.needs_input_grad
        leaves = [one.detach().requires_grad_(want) for one, want in zip(parameters, wanted, strict=True)]
        learning = [one for one in leaves if one.requires_grad]
        to_x = torch.empty_like(x) if into_x else None
        sums: list[Tensor | None] = [None] * len(learning)
        with torch.enable_grad(), torch.autocast(**ctx.autocast):
            for part in slices(x.shape[1], ctx.tile):
                piece = x[:, part].detach().contiguous().requires_grad_(into_x)  # GPT-2's maps take no other
                found = torch.autograd.grad(
                    ctx.function(piece, *leaves),
                    [piece, *learning] if into_x else learning,
                    upstream[:, part],
                    allow_unused=True,
                )
                if to_x is not None:
                    to_x[:, part], found = found[0], found[1:]
                sums = [_added(total, one) for total, one in zip(sums, found, strict=True)]
        summed = iter(sums)
        gradients = (_as(next(summed), leaf) if leaf.requires_grad else None for leaf in leaves)
        return (None, None, None, to_x, *gradients)


def _forward(function: Callable[..., Tensor], x: Tensor, parameters: Sequence[Tensor], tile: int) -> Tensor:
    out: Tensor | None = None
    _at_work.depth = getattr(_at_work, "depth", 0) + 1
    try:
        # Frozen aliases: autocast remembers the cast of a tensor that learns, here without its graph.
        parameters = [parameter.detach() for parameter in parameters]
        for part in slices(x.shape[1], tile):
            piece = function(x[:, part].contiguous(), *parameters)
            if out is None:
                out = piece.new_empty(*x.shape[:2], *piece.shape[2:])
            out[:, part] = piece
    finally:
        _at_work.depth -= 1
    assert out is not None  # more tokens than a tile has
    return out


def _added(total: Tensor | None, gradient: Tensor | None) -> Tensor | None:
    # In float32, or each tile would round the sum once more.
    if gradient is None:
        return total
    if total is None:
        return gradient.to(torch.promote_types(gradient.dtype, torch.float32))
    return total.add_(gradient)


def _as(total: Tensor | None, parameter: Tensor) -> Tensor | None:
    return None if total is None else total.to(parameter.dtype)


class _Original(nn.Module):
    # A module by its own forward pass, for functional_call.
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self._whole = module, module.forward

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self._whole(x)
        return out


def tile_module(
    module: nn.Module, size: int | None = None, dtype: torch.dtype | None = None, compiled: bool = False
) -> None:
    """Let a module that maps each token by itself, [B, T, D] -> [B, T, D'], compute tile by tile. All its names stay.

    Args:
        module: such as a feed-forward layer.
        size: tokens of each row at a time; None: D, as ALST has it: a tile is then about as large as a matrix.
        dtype: what its linear maps multiply in, if that is not the type of their weights: these are then cast once, not
            in each tile.
        compiled: whether tiles are compiled. (What is around them cannot be as one with them.)
    """
    original = _Original(module)
    names = [name for name, _ in original.named_parameters()]
    maps = {f"{name}.{own}" for name, one in original.named_modules() if isinstance(one, nn.Linear) for own in _OWN}

    def function(x: Tensor, *parameters: Tensor) -> Tensor:
        out: Tensor = functional_call(original, dict(zip(names, parameters, strict=True)), (x,))
        return out

    tile = torch.compile(function) if compiled else function

    def forward(x: Tensor) -> Tensor:
        given = (
            one.to(dtype) if dtype is not None and name in maps else one for name, one in original.named_parameters()
        )
        return tiled(tile, x, [*given], x.shape[-1] if size is None else size)

    module.forward = forward
