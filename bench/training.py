"""Training on a CPU against transformers, litgpt and a plain loop: tokens a second; memory at a large vocabulary."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from bench.harness import Result, Setting, Side, first_runs, in_turn, require, result
from bench.training_peers import PEERS, Trainer, ours
from headrace.model.config import parameter_count
from headrace.model.machine import keep_memory
from headrace.recipe.model import ModelConfig

LENGTH = 512
# Name, rows of a step, shape.
SIZES = {
    "14 M": (8, ModelConfig(vocab_size=8192, layers=6, width=384, heads=6, ffn=1024, tied=True)),
    "50 M": (4, ModelConfig(vocab_size=16384, layers=8, width=640, heads=10, ffn=1728, tied=True)),
}
CURVE = 4  # steps whose losses must agree
LARGE = ModelConfig(vocab_size=131_072, layers=4, width=512, heads=8, ffn=1408, tied=True)


def rows(config: ModelConfig, count: int, length: int, seed: int) -> torch.Tensor:
    """Rows of tokens [count, length + 1] that follow Zipf's law, as text does."""
    weights = 1 / torch.arange(1, int(config.vocab_size or 0) + 1)
    generator = torch.Generator().manual_seed(seed)
    return torch.multinomial(weights, count * (length + 1), replacement=True, generator=generator).view(count, -1)


def agree(curves: dict[str, list[float]]) -> None:
    """Raise unless all losses are those of ours within what bf16 may differ."""
    for name, losses in curves.items():
        near = all(abs(a - b) < 0.01 * b for a, b in zip(losses, curves["ours"], strict=True))
        require(near, f"{name} trains otherwise: {losses}, ours {curves['ours']}")


def run(setting: Setting) -> Iterator[Result]:
    """Tokens a second of each size, eager and compiled (of the first, if less than 64 MB are asked); memory."""
    keep_memory()
    for size, (count, config) in list(SIZES.items())[: 1 if setting.mb < 64 else None]:
        for compiled in (False, True):
            yield from speeds(setting, size, config, count, compiled)
    yield from large(setting)


def speeds(setting: Setting, size: str, config: ModelConfig, count: int, compiled: bool) -> Iterator[Result]:
    """One size, one manner: all sides in turn."""
    name = f"training, {size}, {'compiled' if compiled else 'eager'}"
    batches = [rows(config, count, LENGTH, seed) for seed in range(CURVE)]
    sides: dict[str, Side] = {}
    absent: dict[str, str] = {}
    for peer, made in {"ours": ours, **PEERS}.items():
        try:
            trainer = made(config, LENGTH, compiled)
        except ImportError as error:
            absent[peer] = f"unavailable: {error!r}"[:300]
            continue
        sides[peer] = Side(lambda trainer=trainer: [trainer.step(batch) for batch in batches], CURVE * count * LENGTH)
    curves = dict(zip(sides, first_runs(list(sides.values())), strict=True))
    agree(curves)
    taken = dict(zip(sides, in_turn(setting, list(sides.values()), "tokens/s"), strict=True))
    note = f"{parameter_count(config):,} parameters, {count} rows of {LENGTH}"
    for peer in PEERS:
        target = 1.4 if compiled else 1.3
        gone = absent.get(peer)
        yield result(setting, name, peer, "tokens/s", taken["ours"], taken.get(peer), target, note=gone or note)


def large(setting: Setting) -> Iterator[Result]:
    """Peak memory and processor time of a step with 131,072 entries and 4,096 tokens, each in a process of its own."""
    taken: dict[str, list[dict[str, float]]] = {"ours": [], "plain": []}
    for _ in range(setting.rounds):
        for side, measured in taken.items():
            command = [sys.executable, "-m", "bench.training", side]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
            measured.append(json.loads(done.stdout.splitlines()[-1]))
    for key, unit, what, target in (("gb", "GB", "peak memory", 1 / 0.35), ("seconds", "s", "processor time", 1.0)):
        both = [[one[key] for one in taken[side]] for side in ("ours", "plain")]
        row = result(setting, f"training, vocabulary 131,072, {what}", "a loop like nanoGPT's", "s", *both, target)
        yield Result(**{**vars(row), "unit": unit})


def one_step(side: str) -> dict[str, float]:
    """The process's greatest memory in the second of two steps, in GB, and that step's processor seconds."""
    trainer: Trainer = (ours if side == "ours" else PEERS["a loop like nanoGPT's"])(LARGE, 4096, False)
    tokens = rows(LARGE, 1, 4096, 0)
    if side == "ours":
        keep_memory()  # as headrace trains
    trainer.step(tokens)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    begun = time.process_time()
    loss = trainer.step(tokens)
    seconds = time.process_time() - begun
    [peak] = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
    return {"gb": int(peak) / 1e6, "seconds": seconds, "loss": loss}


if __name__ == "__main__":
    print(json.dumps(one_step(sys.argv[1])))
