"""Does muP hold for a run's own model? A coordinate check, and learning rates at several widths, on the run's own rows.

Sizes of activations should not change with width, at first and after some steps (Yang et al., 2022, appendix D.1); and
the best learning rate should be the same at every width.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch
from torch import Tensor

from headrace.errors import UserError
from headrace.model.config import ModelConfig, parameter_count
from headrace.model.mup import at_width
from headrace.model.presets import resolve
from headrace.model.transformer import Block, Transformer
from headrace.recipe.training import OptimizerSection
from headrace.run_folder import artifact, read_recipe
from headrace.sequence.store import ArrowSequence
from headrace.train.optimizer import Optimizer


@dataclass(frozen=True)
class Checked:
    """What was measured.

    Attributes:
        widths: the models' widths, ascending.
        coordinates: what -> width -> mean absolute value after 0, 1, ... steps.
        losses: width -> learning rate -> mean loss of the last quarter of the steps, in nats.
        rate: the learning rate of the coordinates: the best one of the narrowest model.
    """

    widths: list[int]
    coordinates: dict[str, dict[int, list[float]]]
    losses: dict[int, dict[float, float]]
    rate: float

    def power(self, name: str) -> float:
        """The power of the width with which a coordinate has grown after the last step, by least squares."""
        x = [math.log(width) for width in self.widths]
        y = [math.log(self.coordinates[name][width][-1]) for width in self.widths]
        return statistics.linear_regression(x, y).slope

    def best(self, width: int) -> float:
        """The learning rate with the least loss."""
        losses = self.losses[width]
        return min(losses, key=lambda rate: losses[rate] if math.isfinite(losses[rate]) else math.inf)


@dataclass(frozen=True)
class Trial:
    """What a model is trained on.

    Attributes:
        config: the model of the recipe.
        optimizer: the stage's optimizer.
        rows: int64 [N, T + 1].
        batch: rows of a step.
        seed: of the weights.
        scaled: the model at another width.
    """

    config: ModelConfig
    optimizer: OptimizerSection
    rows: Tensor
    batch: int
    seed: int
    scaled: Callable[[ModelConfig, int], ModelConfig] = at_width

    @staticmethod
    def of(run: Path, stage: str | None, steps: int, batch: int, length: int) -> Trial:
        """The first rows of a stage's sequence, cut to a length.

        Raises:
            UserError: the run has no model of headrace's own, or its sequence is not finished or too short.
        """
        recipe = read_recipe(run)
        if recipe.model is None or not recipe.stages:
            raise UserError("The recipe has no model.", str(run), "Add `model:`, and run it --until sequence.")
        chosen = recipe.stage(stage) if stage in [one.name for one in recipe.stages] else recipe.stages[0]
        sequence = ArrowSequence(artifact(run, "sequence", stage or chosen.name))
        if len(sequence) < steps * batch:
            raise UserError(
                f"The sequence has {len(sequence)} rows, of {steps * batch} that are needed.",
                str(run),
                "Use fewer --steps or a smaller --batch.",
            )
        config = resolve(recipe.model, artifact(run, "tokenizer").manifest.extra["vocab_size"])
        if not isinstance(config, ModelConfig):
            raise UserError("muP is for headrace's own models.", "model.huggingface", "Name a preset.")
        rows = torch.from_numpy(sequence.rows(0, steps * batch)[:, : length + 1].astype("int64"))
        return Trial(config, chosen.train.optimizer, rows, batch, recipe.seed)

    def train(self, width: int, rate: float, steps: int) -> Iterator[tuple[Transformer, float]]:
        """The model before each step, with the step's loss."""
        model = Transformer(self.scaled(self.config, width))
        model.initialise(self.seed)
        optimizer = Optimizer(model, self.optimizer)
        optimizer.set_learning_rate(rate)
        for step in range(steps):
            start = step * self.batch % len(self.rows)
            rows = self.rows[start : start + self.batch]
            weights = torch.full((rows[:, 1:].numel(),), 1 / rows[:, 1:].numel())
            loss, _ = model(rows[:, :-1], targets=rows[:, 1:], weights=weights)
            yield model, loss.item()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), self.optimizer.clip or float("inf"))
            optimizer.step()


def check(
    trial: Trial,
    widths: Sequence[int],
    rates: Sequence[float],
    steps: int,
    coordinate_steps: int = 5,
    progress: Callable[[str], None] = lambda text: None,
) -> Checked:
    """Measure both.

    Args:
        trial: the model and its rows.
        widths: of the models.
        rates: learning rates of embedding, head and norms; hidden matrices have theirs in proportion.
        steps: of each training.
        coordinate_steps: steps of the coordinate check.
        progress: told what has been done, in a line.
    """
    widths = sorted(set(widths))
    for width in widths:
        needs = 16 * parameter_count(trial.scaled(trial.config, width))  # weights, gradients, two moments
        if needs > psutil.virtual_memory().available:
            raise UserError(
                f"The model of width {width} takes {needs / 1e9:.1f} GB, more than is free.", "--widths", "Use less."
            )
    losses: dict[int, dict[float, float]] = {}
    for width in widths:
        for rate in rates:
            seen = [loss for _, loss in trial.train(width, rate, steps)]
            last = seen[-max(1, steps // 4) :]
            losses.setdefault(width, {})[rate] = sum(last) / len(last)
            progress(f"width {width}, learning rate {rate:g}: loss {losses[width][rate]:.3f}")
    found = Checked(widths, {}, losses, 0.0)
    found = replace(found, rate=found.best(widths[0]))
    for width in widths:
        for model, _ in trial.train(width, found.rate, coordinate_steps + 1):
            for name, size in sizes(model, trial.rows[: trial.batch, :-1]).items():
                found.coordinates.setdefault(name, {}).setdefault(width, []).append(size)
    return found


@torch.no_grad()
def sizes(model: Transformer, tokens: Tensor) -> dict[str, float]:
    """Mean absolute values of what attention and feed-forward add, of the last block's output, and of the logits."""
    found: dict[str, list[float]] = {}

    def noted(name: str) -> Callable[..., None]:
        def note(module: object, inputs: object, output: Tensor | tuple[Tensor, object]) -> None:
            value = output[0] if isinstance(output, tuple) else output
            found.setdefault(name, []).append(value.abs().mean().item())

        return note

    hooks = []
    for block in model.blocks:
        assert isinstance(block, Block)
        hooks.append(block.attention.register_forward_hook(noted("attention")))
        hooks.append(block.ffn.register_forward_hook(noted("feed-forward")))
    hooks.append(model.blocks[-1].register_forward_hook(noted("last block")))
    logits = model(tokens)
    for hook in hooks:
        hook.remove()
    found["logits"] = [(logits - logits.mean(dim=-1, keepdim=True)).abs().mean().item()]
    return {name: sum(values) / len(values) for name, values in found.items()}
