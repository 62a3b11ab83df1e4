"""Held-out loss against a plain computation over the same rows."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import TINY, TinySequence, definition, rows

from headrace.evaluate.heldout import byte_sizes, held_out_loss
from headrace.flow.plans import write_plan
from headrace.flow.removal import Removal
from headrace.flow.runner import collect, publish
from headrace.flow.step import execute
from headrace.flow.task import TaskContext
from headrace.model.presets import resolve
from headrace.model.transformer import Transformer
from headrace.recipe.training import AttentionSection
from headrace.sequence.store import open_sequence
from headrace.tokens.load import engine_from


@pytest.fixture(scope="module")
def sequence(tmp_path_factory):
    step = TinySequence("heldout", 10, seed=9)
    run: Path = tmp_path_factory.mktemp("run")
    phase = step.phases()[0]
    ctx = TaskContext(run, step, phase.name)
    specs = phase.plan(ctx)
    write_plan(ctx.plan("write"), specs)
    for task in range(len(specs)):
        ctx.mark_done("write", {task: execute(step, TaskContext(run, step, phase.name, task))})
    ctx.close()
    collect(step, ctx, step.finish(ctx))
    with Removal(run) as removal:
        publish(ctx, ctx.artifacts / step.name, removal)
    return open_sequence(ctx.artifacts / step.name)


def plain(model: Transformer, count: int) -> dict[str, list[float]]:
    """Each target's loss by source, one row at a time, from whole logits."""
    tokens, segments, loss = rows(10, 16, 9)
    out: dict[str, list[float]] = {"count": [], "pairs": []}
    for r in range(count):
        row = torch.from_numpy(tokens[r].astype(np.int64))
        each = -model(row[None, :-1])[0].log_softmax(-1)[torch.arange(16), row[1:]]
        for start, length, _, _, source, kind, _ in segments[r]:
            for at in range(max(start, 1), start + length):
                if kind != 255 and loss[r, at]:
                    out[("count", "pairs")[source]].append(each[at - 1].item())
    return out


@pytest.mark.parametrize(("asked", "read", "batch"), [(None, 10, 4), (7, 7, 3), (100, 10, 64)])
def test_loss_by_source_is_that_of_every_target(sequence, asked, read, batch):
    model = Transformer(resolve(TINY, 261))
    model.initialise(2)
    engine = engine_from(definition(), {"eod": 256})
    with torch.no_grad():
        expected = plain(model, read)
    about = sequence, AttentionSection(), asked, batch, torch.device("cpu"), byte_sizes(engine, 261)
    found = held_out_loss(model, *about)
    assert found["rows"] == read
    assert found["tokens"] == sum(map(len, expected.values()))
    assert found["loss"] == pytest.approx(np.mean([*expected["count"], *expected["pairs"]]), rel=1e-5)
    for name, losses in expected.items():
        values = found["sources"][name]
        assert values["tokens"] == len(losses)
        assert values["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
        # Every token of this tokenizer is one byte.
        assert values["bits_per_byte"] == pytest.approx(np.mean(losses) / math.log(2), rel=1e-5)


def test_special_ids_stand_for_no_bytes():
    sizes = byte_sizes(engine_from(definition(), {"eod": 256}), 300)
    assert sizes[:256].tolist() == [1] * 256
    assert not sizes[256:].any()
