"""The estimate of a process among several against what torch holds in it: replicas, shards, shared rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from bench.counted import Counted
from headrace.memory.estimate import estimate
from headrace.memory.machines import Machine
from headrace.memory.shape import Shape
from headrace.memory.stage import settings_of
from headrace.model.transformer import Transformer
from headrace.recipe.model import ModelConfig
from headrace.recipe.training import TrainSection
from headrace.train.parallel import Placed
from headrace.train.world import arranged

CPU = torch.device("cpu")
CONFIG = ModelConfig(vocab_size=3000, layers=4, width=64, heads=4, kv_heads=2, ffn=176, tied=False)
LENGTH, WORLD = 1200, 2
ULYSSES, RING = {"sequence_parallel": 2}, {"sequence_parallel": 2, "context": "ring"}
CASES = {
    "replicas": {"shard": "none"},
    "shards": {"shard": "full"},
    "shards, recomputed": {"shard": "full", "recompute": "full"},
    "ulysses": {"shard": "none", "long": ULYSSES},
    "ulysses, shards, tiles": {"shard": "full", "recompute": "full", "long": {**ULYSSES, "tile_mlp": "auto"}},
    "ring": {"shard": "none", "long": RING},
    "ring, shards": {"shard": "full", "recompute": "selective", "long": RING},
}
FEW = ["ulysses", "shards, recomputed"]
COUNTED = ("gradients", "checkpoints", "attention", "mlp", "logits", "weights", "communication")


def section(name: str) -> TrainSection:
    shared = "long" in CASES[name]
    about = {"precision": "fp32", "batch": 1 if shared else WORLD, "micro_batch": 1}
    return TrainSection.model_validate({**about, **CASES[name]})


def counted(train: TrainSection, rank: int) -> int:
    """The most bytes of tensors that are made for a step, beside the weights that this process keeps."""
    world = arranged(rank, WORLD, CPU, 1, train.long.sequence_parallel)
    with torch.device("meta"):
        model = Transformer(CONFIG)
    placed = Placed(model, train, world)
    model.initialise(1)
    size = placed.stretch.length(LENGTH)
    tokens, targets = torch.randint(0, int(CONFIG.vocab_size or 0), (2, 1, size))
    positions = torch.from_numpy(placed.stretch.places(LENGTH))
    with Counted() as seen:
        placed.ready()
        with placed.accumulating(last=True):
            loss, _ = placed(tokens, positions, targets=targets, weights=torch.full((size,), 1 / LENGTH))
            loss.backward()
    return seen.peak


def work(rank: int, folder: str, names: list[str]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    found = {name: counted(section(name), rank) for name in names}
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("names", [FEW, [*CASES]], ids=["few", "all"])
def test_each_process_holds_what_is_estimated(tmp_path, names):
    mp.spawn(work, args=(str(tmp_path), names), nprocs=WORLD)
    shape, machine = Shape.of(CONFIG), Machine("CPU", 1 << 40, False, WORLD)
    for rank in range(WORLD):
        for name, size in json.loads((tmp_path / f"{rank}.json").read_text()).items():
            settings = settings_of(section(name), LENGTH, shape, machine, "")
            moments = [moment for moment in estimate(shape, settings).moments if moment.name != "update"]
            most = max(sum(moment.terms[term] for term in COUNTED) for moment in moments)
            assert most - 4 * shape.parameters // settings.shares == pytest.approx(size, rel=0.15), (name, rank)
