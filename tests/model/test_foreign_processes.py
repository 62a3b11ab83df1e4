"""Models of transformers on two processes: sharded, replicated, and with rows that both share, as on one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from test_foreign_ways import MODELS, both
from test_shared_rows import ROWS, batch

from headrace.errors import UserError
from headrace.model.build import build
from headrace.model.config import ForeignConfig
from headrace.model.micro import Micro
from headrace.model.transformer import fill
from headrace.recipe.training import AttentionSection, TrainSection
from headrace.sequence.batch import Batch
from headrace.sequence.stretch import WHOLE
from headrace.train.parallel import Placed
from headrace.train.world import World, arranged

pytest.importorskip("transformers")
CPU = torch.device("cpu")
WEIGHT = torch.tensor(0.1)
TRAINED = ["llama", "gpt2", "gpt_neox", "phi", "cohere2", "mistral", "mixtral", "gemma2", "bloom"]
SHARED = {
    "llama": 13,
    "qwen2": 16,
    "mistral": 13,
    "gpt_neox": 3,
    "phi": 16,
    "gemma3_text": 13,
    "gpt2": 21,
    "mixtral": 13,
    "gemma2": 16,
    "gpt_oss": 13,
}
REFUSED = ["llama4_text", "bloom", "alibi", "mamba", "qwen3_next", "balanced"]
TILES = {"tile_mlp": 2, "tile_loss": 3}


def section(**told: object) -> TrainSection:
    return TrainSection.model_validate({"precision": "fp32", **told})


def attention(name: str) -> AttentionSection:
    alone = name == "bloom"
    return AttentionSection(documents=not alone, positions="row" if alone else "document")


def compare(name: str, made: TrainSection, world: World, rows: Batch) -> None:
    """One step's loss and gradients on all processes, against the model whole in one."""
    _, one = both(name)
    weights = dict(one.state_dict())
    total, _ = Micro.of(rows, attention(name), CPU).forward(one, WEIGHT, 0.01)
    total.backward()
    with torch.device("meta"):
        model = build(one.config)
    placed = Placed(model, made, world)
    for key, parameter in model.named_parameters():
        with torch.no_grad():
            fill(parameter, weights[key])
    placed.ready()
    own = (
        rows
        if world.data_size == 1
        else Batch(*(np.array_split(part, world.data_size)[world.data_rank] for part in rows))
    )
    part = Micro.of(own, attention(name), CPU, stretch=placed.stretch if world.sequence is not None else WHOLE)
    loss, _ = part.forward(placed, WEIGHT, 0.01)
    loss.backward()
    torch.testing.assert_close(world.sum(loss.detach()), total.detach(), rtol=1e-5, atol=1e-5)
    expected = dict(one.named_parameters())
    whole = torch.stack([p.grad.norm() for p in expected.values() if p.grad is not None]).norm()
    for key, parameter in model.named_parameters():
        found = parameter.grad.full_tensor() if hasattr(parameter.grad, "full_tensor") else parameter.grad
        apart = (found - expected[key].grad).norm()
        assert apart <= 1e-4 * expected[key].grad.norm() + 1e-5 * whole, key


def work(rank: int, folder: str, few: bool) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    data, shared = (arranged(rank, 2, CPU, 1, processes) for processes in (1, 2))
    tiled = {"llama", "gpt2", "phi", "gemma3_text", "mistral"}
    for i, name in enumerate(TRAINED[:2] if few else TRAINED):
        long = TILES if name in tiled else {}
        made = section(shard="none" if i % 3 == 2 else "full", recompute="full" if i % 2 else "none", long=long)
        try:
            compare(name, made, data, batch(13, ("some", "one")[i % 2], seed=0))
        except Exception as error:
            raise AssertionError(f"{name}, {made.shard}, {made.recompute}: {error}") from error
    for i, (name, length) in enumerate(list(SHARED.items())[: 2 if few else None]):
        long = {"sequence_parallel": 2, **(TILES if name in tiled else {})}
        made = section(shard="full" if i % 2 else "none", recompute="none" if i % 3 else "full", long=long)
        try:
            compare(name, made, shared, batch(length, ("some", "first", "one")[i % 3], seed=0))
        except Exception as error:
            raise AssertionError(f"{name}, {made.shard}, rows of {length} shared: {error}") from error
    for name in [] if few else REFUSED:
        config = ForeignConfig(huggingface=json.loads(MODELS[name][0].to_json_string()), vocab_size=100)
        with torch.device("meta"):
            model = build(config)
        with pytest.raises(UserError, match="its rows cannot be shared"):
            Placed(model, section(long={"sequence_parallel": 2}), shared)
    dist.destroy_process_group()


@pytest.mark.parametrize("few", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_two_processes_compute_loss_and_gradients_of_one(tmp_path: Path, few: bool) -> None:
    assert {*TRAINED, *SHARED} <= MODELS.keys()
    assert ROWS == 3  # which two processes cannot divide
    mp.spawn(work, args=(str(tmp_path), few), nprocs=2)
