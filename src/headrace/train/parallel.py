"""Place a model on the processes of a training: sharded, replicated or alone; recomputing activations; compiled.

Sharding is FSDP2 (Zhao et al., 2023): each process keeps a share of every tensor, gathered layer by layer when needed.
Tensor parallelism (Shoeybi et al., 2019) also splits each matrix product over the ``tensor`` processes: queries, keys,
values and the feed-forward's inner width by columns, the two output matrices by rows. Sequence parallelism splits
each row: a process computes a stretch of it, and attention for some of the heads (DeepSpeed Ulysses: Jacobs et al.,
2023) or of its own queries (ring attention: Liu et al., 2023).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from headrace.errors import UserError
from headrace.model import tiled
from headrace.model.exchange import Exchange, Ulysses
from headrace.model.ring import Ring
from headrace.model.transformer import Transformer
from headrace.recipe.training import TrainSection
from headrace.sequence.stretch import WHOLE
from headrace.train.offload import CheckpointStore
from headrace.train.world import World

# Up to this many parameters each process keeps all of them: their gradients and moments, 16 bytes a parameter, are
# then 8 GB, and one all-reduce a step costs less than gathering every layer twice.
REPLICATED = 500_000_000


class Placed:
    """A model on the processes of a training.

    Args:
        model: the model. Its parameters may still be on ``meta``.
        section: the stage's training section.
        world: the processes.

    Attributes:
        model: the model; its parameters are tensors, or DTensors if they are sharded.
        stretch: the part of each row that this process computes.
        checkpoints: where its blocks' inputs are in between, if not on the device.
    """

    def __init__(self, model: Transformer, section: TrainSection, world: World) -> None:
        self.model, self.world = model, world
        self._module: nn.Module = model
        self._on_host = section.long.offload_parameters
        self.stretch = WHOLE
        sharded = shards(model, section, world)
        self.checkpoints = CheckpointStore(world.device) if section.long.offload_checkpoints else None
        tile, tile_loss = section.long.tile_mlp, section.long.tile_loss
        if tile is not None:
            cast = None if section.precision == "fp8" else model.dtype
            model.tile_mlp(None if tile == "auto" else tile, cast, section.compile)
        if tile_loss is not None:
            model.tile_loss = None if tile_loss == "auto" else tile_loss
        # What is done around a block then cannot be compiled with it as one.
        apart = tile is not None or self.checkpoints is not None
        for block in model.blocks:  # as one, they take a tenth longer to compile
            if section.compile and apart:
                block.forward = torch.compile(block.forward)
            if section.recompute != "none":
                block.forward = recomputed(block.forward, section.recompute)
            if self.checkpoints is not None:
                block.forward = self.checkpoints.around(block.forward)
            if section.compile and not apart:
                block.compile()
        if world.tensor_size > 1:
            split(model, world)
        if world.sequence is not None:
            exchange = exchange_of(model, section, world)
            self.stretch = exchange.stretch
            model.share_rows(exchange, world.tensor_size)
        if sharded:
            shard(model, section, world)
        self._materialise()

    def _materialise(self) -> None:
        device = torch.device("cpu") if self._on_host else self.world.device
        if any(parameter.is_meta for parameter in self.model.parameters()):
            self.model.to_empty(device=device)
        else:
            self.model.to(device)
        for module in self.model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                module._buffers[name] = buffer.to(self.world.device)

    def ready(self) -> None:
        """Call once the weights are set: replicas are made equal to rank 0's."""
        if self.world.mesh is None or self.world.shares == 1 or isinstance(self.model, FSDPModule):
            return
        group = self.world.mesh["shares"].get_group()
        self._module = DistributedDataParallel(self.model, process_group=group)
        # Gradients are summed, as when they are sharded. (DDP divides, and wants a hook without written annotations.)
        self._module.register_comm_hook(group, lambda group, bucket: _summed(group, bucket))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The model's forward pass, with whatever synchronization the placement needs."""
        return self._module(*args, **kwargs)

    @contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        """Exchange gradients only in the backward pass of a step's last micro-batch."""
        if isinstance(self.model, FSDPModule):
            self.model.set_requires_gradient_sync(last or self._on_host)  # whole gradients would stay on the device
            yield
        elif isinstance(self._module, DistributedDataParallel) and not last:
            with self._module.no_sync():
                yield
        else:
            yield

    @property
    def whole(self) -> bool:
        """Whether this process has all weights."""
        return not isinstance(self.model, FSDPModule) and self.world.tensor_size == 1

    def gradient_norm(self) -> Tensor:
        """The norm of the whole gradient, a float32 scalar; the same bits in every process."""
        found = norm([parameter.grad for parameter in self.model.parameters() if parameter.grad is not None])
        return found.to(self.world.device)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Forward passes of all processes without a backward pass."""
        with torch.no_grad():
            yield
        if isinstance(self.model, FSDPModule):
            self.model.reshard()  # else done by the backward pass

    @contextmanager
    def alone(self) -> Iterator[Transformer]:
        """The model for forward passes that each process makes by itself, over whole rows."""
        exchange = self.model.exchange
        self.model.share_rows(None)
        try:
            yield self.model
        finally:
            self.model.share_rows(exchange, self.world.tensor_size)

    def scale_gradients(self, factor: Tensor) -> None:
        """Multiply all gradients by a scalar."""
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        local = [gradient.to_local() if isinstance(gradient, DTensor) else gradient for gradient in gradients]
        torch._foreach_mul_(local, factor.to(local[0].device))


def norm(tensors: list[Tensor]) -> Tensor:
    """The norm of tensors together, some sharded over one mesh or another: a scalar, the same bits in every process."""
    groups: dict[Any, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.device_mesh if isinstance(tensor, DTensor) else None, []).append(tensor)
    norms = [torch.nn.utils.get_total_norm(group) for group in groups.values()]
    whole = [one.full_tensor() if isinstance(one, DTensor) else one for one in norms]
    return torch.linalg.vector_norm(torch.stack(whole)) if len(whole) != 1 else whole[0]


def shards(model: Transformer, section: TrainSection, world: World) -> bool:
    """Whether the weights are sharded over the processes with other shares of a batch: also over one, from the host."""
    if section.long.offload_parameters:
        return True
    if world.shares == 1:
        return False
    if world.tensor_size > 1:  # DDP knows no shares of tensors
        return True
    if section.shard == "auto":
        return sum(parameter.numel() for parameter in model.parameters()) > REPLICATED
    return section.shard == "full"


def shard(model: Transformer, section: TrainSection, world: World) -> None:
    """Shard each block, and what is outside the blocks, over the processes with other shares of a batch.

    Blocks are gathered in the type in which they are multiplied; embedding, head and norm in float32, because the
    head's gradient must be summed in float32. Gradients are summed, not averaged: the loss is already divided by the
    number of targets of all processes. With ``offload_parameters`` shares and their gradients are in host memory.
    """
    mesh = _alone(world.device) if world.mesh is None else world.mesh["shares"]
    pinned = world.device.type == "cuda"
    host = CPUOffloadPolicy(pin_memory=pinned) if section.long.offload_parameters else OffloadPolicy()
    inner = MixedPrecisionPolicy(param_dtype=model.dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    outer = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=inner, offload_policy=host)
    fully_shard(model, mesh=mesh, mp_policy=outer, offload_policy=host)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def exchange_of(model: Transformer, section: TrainSection, world: World) -> Exchange:
    """How processes that share rows attend to them: by Ulysses, unless the recipe or the number of heads says ring."""
    assert world.sequence is not None
    ring = section.long.context == "ring"
    if section.long.context == "auto":
        ring = any(heads // world.tensor_size % world.sequence_size for heads in model.query_heads)
    return Ring(world.sequence) if ring else Ulysses(world.sequence)


def _alone(device: torch.device) -> DeviceMesh:
    """A mesh of this process, which no launcher started."""
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    return init_device_mesh(device.type, (1,))


def split(model: Transformer, world: World) -> None:
    """Split the matrices of each block over the tensor processes, by whole key-value heads and columns of the ffn.

    Raises:
        UserError: heads or columns cannot be divided evenly.
    """
    assert world.mesh is not None
    if not isinstance(model, Transformer):
        raise UserError(
            "A model of transformers is not split over processes.", "train.tensor_parallel", "Set it to 1, or shard."
        )
    for name, count in (("key-value heads", model.config.key_value_heads), ("ffn columns", model.config.ffn)):
        if count % world.tensor_size:
            raise UserError(
                f"A model with {count} {name} cannot be split over {world.tensor_size} processes.",
                "train.tensor_parallel",
                f"Use a number that divides {count}.",
            )
    plan = {
        "attention.qkv": ColwiseParallel(),
        "attention.q_norm": SequenceParallel(sequence_dim=1, use_local_output=True),
        "attention.k_norm": SequenceParallel(sequence_dim=1, use_local_output=True),
        "attention.out": RowwiseParallel(),
        "ffn.gate": ColwiseParallel(),
        "ffn.up": ColwiseParallel(),
        "ffn.down": RowwiseParallel(),
    }
    for block in model.blocks:
        there = {name for name, module in block.named_modules() if module is not None}
        parallelize_module(block, world.mesh["tensor"], {name: way for name, way in plan.items() if name in there})


def recomputed(forward: Callable[..., Any], how: str) -> Callable[..., Any]:
    """A forward pass whose activations are computed again in the backward pass.

    Args:
        forward: a block's forward pass.
        how: ``full``: keep only the block's input (Chen et al., 2016); ``selective``: also keep the results of matrix
            products and attention, which cost most to compute again (Korthikanti et al., 2022).
    """
    if how == "full":
        return functools.partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=False)
    context = functools.partial(create_selective_checkpoint_contexts, _kept)
    return functools.partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=False, context_fn=context)


_COSTLY = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
}


def _kept(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return (
        CheckpointPolicy.MUST_SAVE if operation in _COSTLY and not tiled.busy() else CheckpointPolicy.PREFER_RECOMPUTE
    )


def _summed(group: dist.ProcessGroup, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    work = dist.all_reduce(bucket.buffer(), group=group, async_op=True)
    return work.get_future().then(lambda done: done.value()[0])
