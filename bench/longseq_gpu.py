"""The longest row that one GPU trains Llama-3.1-8B's shape on, and how fast. Gives no row without a GPU.

ALST (Bekman et al., 2025) on one H100 of 80 GB: 500 k tokens, 548 TFLOP/s, with all that the host can hold on the host.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch

from bench.harness import Result, Setting, result
from headrace.model.config import flops_per_token
from headrace.model.transformer import Transformer
from headrace.recipe.model import ModelConfig
from headrace.recipe.training import TrainSection
from headrace.train.optimizer import Optimizer
from headrace.train.parallel import Placed
from headrace.train.world import joined

LLAMA = ModelConfig(
    vocab_size=128_256, layers=32, width=4096, heads=32, kv_heads=8, ffn=14_336, tied=False, rotary_base=500_000
)
LONG = dict.fromkeys(("offload_checkpoints", "offload_parameters"), True) | {"tile_loss": 16_384, "tile_mlp": "auto"}
SECTION: dict[str, Any] = {"recompute": "full", "long": LONG}
LEAST = 32_768  # ALST's baseline
STEP = 32_768  # how finely the longest is looked for
GOALS = {"H100": 0.5, "H200": 1.2}  # millions of tokens
FULL = 3  # the exit code of a row that does not fit


def run(setting: Setting) -> Iterator[Result]:
    """The longest row, in millions of tokens, and the rate of its step."""
    if not torch.cuda.is_available():
        return
    kind = torch.cuda.get_device_name()
    length, told = longest()
    goal = next((goal for name, goal in GOALS.items() if name in kind), None)
    note = f"{kind}, Llama-3.1-8B's shape, random weights, {json.dumps(SECTION)}"
    title = "long-rows-gpu"
    yield result(setting, f"{title}, longest", None, "M tokens", [length / 1e6], None, goal, "ours", note)
    yield result(setting, f"{title}, rate of it", None, "tokens/s", [told["rate"]], None, note=note)
    yield result(setting, f"{title}, arithmetic of it", None, "TFLOP/s", [told["tflops"]], None, 548, "ours", note)


def longest() -> tuple[int, dict[str, float]]:
    """The longest row that fits, each tried in a process of its own: twice as long until one does not, then between.

    Raises:
        RuntimeError: not even the shortest fits.
    """
    fits, length, told = 0, LEAST, {}
    while (found := _tried(length)) is not None:
        fits, length, told = length, 2 * length, found
    if not fits:
        raise RuntimeError(f"a row of {LEAST:,} tokens does not fit")
    full = length
    while full - fits > STEP:
        length = (fits + full) // 2 // STEP * STEP
        if (found := _tried(length)) is None:
            full = length
        else:
            fits, told = length, found
    return fits, told


def _tried(length: int) -> dict[str, float] | None:
    command = [sys.executable, "-m", "bench.longseq_gpu", str(length)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode == FULL:
        return None
    if done.returncode:
        raise RuntimeError(f"a row of {length:,} tokens ended with {done.returncode}")
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


def step(length: int) -> dict[str, float]:
    """The second of two steps of one row: tokens a second, TFLOP/s (without what is computed again), GB at the peak."""
    with joined() as world:
        with torch.device("meta"):
            model = Transformer(LLAMA, torch.bfloat16)
        section = TrainSection.model_validate(SECTION)
        placed = Placed(model, section, world)
        model.initialise(1)
        placed.ready()
        optimizer = Optimizer(model, section.optimizer, section.long.offloads_update)
        ids = torch.randint(0, int(LLAMA.vocab_size or 0), (1, length + 1), device=world.device)
        weights = torch.full((length,), 1 / length, device=world.device)
        begun = 0.0
        for _ in range(2):
            torch.cuda.synchronize()
            begun = time.perf_counter()
            with placed.accumulating(last=True):
                placed(ids[:, :-1], targets=ids[:, 1:], weights=weights)[0].backward()
            optimizer.step()
            optimizer.zero_grad()
            torch.cuda.synchronize()
        seconds = time.perf_counter() - begun
    flops = flops_per_token(LLAMA, length) * length
    rate, memory = length / seconds, torch.cuda.max_memory_allocated() / 1e9
    return {"rate": rate, "tflops": flops / seconds / 1e12, "memory": memory}


if __name__ == "__main__":
    try:
        print(json.dumps(step(int(sys.argv[1]))))
    except torch.OutOfMemoryError:
        sys.exit(FULL)
