"""The training loop: accumulate, clip, update, log, checkpoint; the same from any checkpoint on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from headrace.errors import UserError
from headrace.evaluate.sources import SourceTotals, target_sources
from headrace.model.objective import Micro, summed_loss
from headrace.model.transformer import Transformer
from headrace.recipe.training import TrainSection
from headrace.sequence.loader import Batch, Loader
from headrace.sequence.reader import SequenceReader
from headrace.train import checkpoint
from headrace.train.metrics import Metrics
from headrace.train.optimizer import AdamW
from headrace.train.schedules import learning_rate

# A single overflow may be one bad batch, whose update is skipped; weights that keep overflowing are lost.
MOST_SKIPPED_IN_A_ROW = 5
PREFETCH = 2  # batches read ahead: one in use, one ready


@dataclass
class Stage:
    """A stage being trained.

    Attributes:
        name: the stage.
        identity: the step's identity, recorded in checkpoints.
        section: the recipe's training section.
        sequence: the stage's sequence.
        folder: the folder for checkpoints and metrics.
        steps: the total number of steps.
        model: the model being trained, on its device.
        optimizer: the optimizer of the model's parameters.
    """

    name: str
    identity: str
    section: TrainSection
    sequence: SequenceReader
    folder: Path
    steps: int
    model: Transformer
    optimizer: AdamW


def train(stage: Stage, begin: dict[str, Any], progress: Callable[[int, float], None]) -> checkpoint.Checkpoint:
    """Train a stage to its last step, from its newest complete checkpoint if there is one.

    Args:
        stage: the stage to train.
        begin: stored in the state of each checkpoint of the stage, under ``begin``.
        progress: called after each step with its number, from 1, and its loss in nats per token.

    Returns:
        The checkpoint of the last step. Model and optimizer are in that state.

    Raises:
        UserError: the checkpoint belongs to another sequence, or the loss repeatedly is not finite.
    """
    section = stage.section
    done = newest(stage)
    if done is not None:
        stage.model.load_state_dict(done.model())
        stage.optimizer.load_named_state(done.optimizer())
    start = done.step if done is not None else 0
    totals = dict(done.state["totals"]) if done is not None else {"tokens": 0, "skipped": 0, "sources": {}}
    loader = Loader(
        stage.sequence,
        section.batch,
        state=done.state["loader"] if done is not None else None,
        positions=section.attention.positions,
        prefetch=PREFETCH,
    )
    reader = stage.sequence
    hidden = torch.compile(stage.model.hidden) if section.compile else stage.model.hidden
    batches = iter(loader)
    skipped_in_a_row = 0
    with Metrics(stage.folder, None if done is None else done.metrics) as metrics:
        for step in range(start, stage.steps):
            begun = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - begun
            rows = step * section.batch
            rate = learning_rate(section.schedule, section.optimizer.learning_rate, step, stage.steps)
            sums = SourceTotals(reader.sources)
            norm = update(stage, batch, target_sources(reader, rows, rows + section.batch), rate, sums, hidden)
            skipped_in_a_row = 0 if norm is not None else skipped_in_a_row + 1
            count(totals, sums, norm is None)
            seconds = time.perf_counter() - begun
            if (step + 1) % section.log_every == 0 or step + 1 == stage.steps:
                metrics.add(
                    {
                        "step": step + 1,
                        "loss": finite(sums.loss),
                        "learning_rate": rate,
                        "grad_norm": norm,
                        "tokens": (step + 1) * section.batch * reader.seq_len,
                        "loss_tokens": int(sums.tokens.sum()),
                        "sources": sums.by_source(),
                    },
                    {
                        "seconds": round(seconds, 4),
                        "tokens_per_second": round(section.batch * reader.seq_len / seconds, 1),
                        "data_wait": round(waited, 6),
                    },
                )
            if skipped_in_a_row == MOST_SKIPPED_IN_A_ROW:
                raise lost(stage, step, sums)
            progress(step + 1, sums.loss)
            if (step + 1) % section.checkpoint_every == 0 or step + 1 == stage.steps:
                state = {"identity": stage.identity, "step": step + 1, "loader": loader.state_dict(), "totals": totals}
                done = save(stage, {**state, "begin": begin})
    assert done is not None
    return done


def update(
    stage: Stage,
    batch: Batch,
    sources: Any,
    rate: float,
    sums: SourceTotals,
    hidden: Callable[..., torch.Tensor],
) -> float | None:
    """One optimizer step on a batch, accumulating gradients over micro-batches.

    Args:
        stage: the stage.
        batch: the whole step's batch.
        sources: int32[B, L], the source of each target.
        rate: the learning rate.
        sums: receives the losses of the step.
        hidden: the model's ``hidden``, compiled or not.

    Returns:
        The norm of the gradient before clipping; None if it was not finite, so that the update was skipped.
    """
    section, model, optimizer = stage.section, stage.model, stage.optimizer
    size = section.micro_batch or section.batch
    tokens = int(batch.loss.sum())
    device = model.embedding.weight.device
    optimizer.zero_grad(set_to_none=True)
    for first in range(0, section.batch, size):
        part = Batch(*(array[first : first + size] for array in batch))
        if not part.loss.any():
            continue
        weight = section.loss.of_each(section.batch, tokens)
        loss, each = summed_loss(model, Micro.of(part, section.attention, device), weight, hidden)
        loss.backward()
        sums.add(sources[first : first + size][part.loss], each.double().cpu().numpy())
    if tokens == 0:
        return None
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), section.optimizer.clip or math.inf).item()
    if not math.isfinite(norm) or not math.isfinite(sums.loss):
        return None
    optimizer.set_learning_rate(rate)
    optimizer.step()
    return norm


def newest(stage: Stage) -> checkpoint.Checkpoint | None:
    """The newest complete and intact checkpoint of the stage."""
    return checkpoint.newest(stage.folder, stage.identity)


def save(stage: Stage, state: dict[str, Any]) -> checkpoint.Checkpoint:
    """Write a checkpoint and delete those it replaces."""
    done = checkpoint.save(stage.folder, state, stage.model.state_dict(), stage.optimizer.named_state())
    checkpoint.prune(stage.folder, stage.identity, stage.section.keep)
    return done


def count(totals: dict[str, Any], sums: SourceTotals, skipped: bool) -> None:
    """Add a step to the totals that checkpoints contain."""
    totals["tokens"] += int(sums.tokens.sum())
    totals["skipped"] += skipped
    sources = dict(totals["sources"])
    for name, tokens in zip(sums.names, sums.tokens.tolist(), strict=False):
        if tokens:
            sources[name] = sources.get(name, 0) + tokens
    totals["sources"] = sources


def finite(value: float) -> float | None:
    """The value, or None if JSON cannot represent it."""
    return value if math.isfinite(value) else None


def lost(stage: Stage, step: int, sums: SourceTotals) -> UserError:
    """The error for a loss that does not recover: names the step, its rows and the sources."""
    first = (step + 1 - MOST_SKIPPED_IN_A_ROW) * stage.section.batch
    losses = ", ".join(f"{name} {values['loss']:.4g}" for name, values in sums.by_source().items())
    return UserError(
        f"The loss or gradient was not finite for {MOST_SKIPPED_IN_A_ROW} steps in a row.",
        f"stage {stage.name}, up to step {step + 1}, rows {first} to {(step + 1) * stage.section.batch} ({losses})",
        "Lower train.optimizer.learning_rate, lengthen the warmup, or inspect the batch with `headrace replay`.",
    )
