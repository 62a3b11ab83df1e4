"""Model FLOPs utilisation on one GPU: CrystalCoder's and SnowCoder's shapes in bf16. Gives no row without a GPU."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from bench.harness import Result, Setting, result
from headrace.model.config import flops_per_token
from headrace.model.presets import resolve
from headrace.model.transformer import Transformer
from headrace.recipe.model import ModelSection
from headrace.recipe.training import TrainSection
from headrace.train.accelerators import known_peak
from headrace.train.optimizer import Optimizer
from headrace.train.parallel import Placed
from headrace.train.world import joined

# Name, preset, tokens of a step, what is recomputed: at 7 B, weights, gradients and moments alone are 105 GB.
SHAPES = {"1.3 B": ("snowcoder-1.3b", 16_384, "none"), "7 B": ("crystalcoder-7b", 8192, "full")}
STEPS = 10


def run(setting: Setting) -> Iterator[Result]:
    """Percent of the GPU's peak for each shape and row length."""
    if not torch.cuda.is_available():
        return
    kind = torch.cuda.get_device_name()
    peak = known_peak(kind)
    if peak is None:
        raise RuntimeError(f"the peak of {kind} is not known here")
    for name, shape in SHAPES.items():
        for length in (2048, 8192):
            rounds = [utilisation(*shape, length, peak) for _ in range(setting.rounds)]
            note = f"{kind}, {peak / 1e12:.0f} TFLOP/s, {shape[1]} tokens a step, recomputed: {shape[2]}"
            title = f"training on a GPU, {name}, L = {length}"
            yield result(setting, title, None, "% MFU", rounds, None, 55, "ours", note)


def utilisation(preset: str, count: int, recompute: str, length: int, peak: float) -> float:
    """Percent of the peak that a step's arithmetic comes to; what is computed again does not count."""
    config = resolve(ModelSection.model_validate({"preset": preset}), None)
    section = TrainSection.model_validate({"compile": True, "recompute": recompute})
    with joined() as world:
        with torch.device("meta"):
            model = Transformer(config, torch.bfloat16)
        placed = Placed(model, section, world)
        model.initialise(1)
        placed.ready()
        optimizer = Optimizer(model, section.optimizer)
        ids = torch.randint(0, int(config.vocab_size or 0), (count // length, length + 1), device=world.device)
        weights = torch.full((count,), 1 / count, device=world.device)

        def step() -> None:
            loss, _ = placed(ids[:, :-1], targets=ids[:, 1:], weights=weights)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        for _ in range(3):
            step()
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(STEPS):
            step()
        torch.cuda.synchronize()
        seconds = (time.perf_counter() - begun) / STEPS
    return 100 * flops_per_token(config, length) * count / seconds / peak
