"""Weights that are spread over processes: drawn as by one process, whatever the layout; the loss through wrappers."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from bench.counted import Counted
from headrace.model.config import ModelConfig
from headrace.model.transformer import Transformer

# Sizes that no number of processes divides.
CONFIG = ModelConfig(vocab_size=37, layers=2, width=20, heads=4, kv_heads=2, head_dim=6, ffn=22, attention_bias="qkv",
                     ffn_bias=True, output_bias=True, tied=False)  # fmt: skip


def whole() -> Transformer:
    model = Transformer(CONFIG)
    model.initialise(3)
    return model


def loss(model: torch.nn.Module) -> torch.Tensor:
    tokens = torch.arange(26).view(2, 13)
    return model(tokens[:, :-1], targets=tokens[:, 1:].flatten())[0]


def sharded(shape: tuple[int, ...]) -> Transformer:
    """On meta first; the last dimension of the mesh is tensor-parallel if there are two."""
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("data", "tensor")[: len(shape)])
    with torch.device("meta"):
        model = Transformer(CONFIG)
    if len(shape) == 2:
        column, row = ColwiseParallel(), RowwiseParallel()
        plan = {"attention.qkv": column, "attention.out": row, "ffn.gate": column, "ffn.up": column, "ffn.down": row}
        for block in model.blocks:
            parallelize_module(block, mesh["tensor"], plan)
    for block in model.blocks:
        fully_shard(block, mesh=mesh["data"])
    fully_shard(model, mesh=mesh["data"])
    model.to_empty(device="cpu")
    model.initialise(3)
    return model


def work(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=4)
    for shape in ((4,), (2, 2)):
        model, one = sharded(shape), whole()
        expected = dict(one.named_parameters())
        for name, parameter in model.named_parameters():
            assert isinstance(parameter, DTensor)
            assert torch.equal(parameter.full_tensor(), expected[name]), name
        torch.testing.assert_close(loss(model), loss(one))
        model.tile_loss = 3
        with Counted() as seen:
            loss(model).backward()
        rows = {size[0] for size in seen.shapes if len(size) == 2 and size[1] == CONFIG.vocab_size}
        assert rows == {CONFIG.width, 3}  # of the matrix, and of logits: there are 24 tokens
        loss(one).backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.grad.full_tensor(), expected[name].grad, rtol=1e-4, atol=1e-6)
    dist.destroy_process_group()


def test_shards_of_any_layout_are_parts_of_the_same_weights(tmp_path: Path):
    mp.spawn(work, (str(tmp_path),), nprocs=4)
