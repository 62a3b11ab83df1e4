"""Training as a step of the flow: killed at any step it ends with the same bytes; accumulation; what goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_training import SECTION, TinyReader, coordinate, graph, rows, targets, tiny_job

from headrace.errors import UserError
from headrace.evaluate.sources import SourceTotals
from headrace.flow.artifact import Artifact
from headrace.recipe.training import EXECUTION
from headrace.sequence.loader import Loader
from headrace.sequence.store import open_sequence
from headrace.sequence.target_sources import target_sources
from headrace.train.checkpoint import complete
from headrace.train.guard import spikes
from headrace.train.interruption import Interruption
from headrace.train.job import Job
from headrace.train.loop import Trainer
from headrace.train.metrics import read
from headrace.train.trajectory import latest
from headrace.train.world import World

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _workers_find_the_toys(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)


def prepare(run: Path, **changes) -> Path:
    run.mkdir(parents=True, exist_ok=True)
    (run / "tiny.json").write_text(json.dumps({**SECTION, **changes}))
    return run


def published(run: Path) -> dict[str, bytes]:
    base = run / "artifacts"
    return {str(p.relative_to(base)): p.read_bytes() for p in sorted(base.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)
        run = prepare(tmp_path_factory.mktemp("finished") / "run")
        coordinate(run)
    return run


@pytest.fixture(scope="module")
def sequence(finished):
    return open_sequence(finished / "artifacts" / graph(SECTION)[0].sequence.name)


def trained(job: Job) -> Trainer:
    trainer = Trainer(job, World())
    trainer.train(lambda step, loss: None)
    return trainer


def made(run: Path, kind: str, stage: str) -> Artifact:
    [step] = [step for step in targets(run) if (step.kind, step.stage) == (kind, stage)]
    return Artifact.open(run / "artifacts" / step.name)


def read_json(artifact: Artifact, name: str):
    return json.loads(artifact.file_path(name).read_text())


def test_a_stage_learns_and_hands_over_to_the_next(finished):
    one, two = (read_json(made(finished, "evaluation", stage), "evaluation.json") for stage in ("one", "two"))
    assert one["held_out"]["loss"] < one["initial"]["loss"] - 1
    assert one["held_out"]["sources"].keys() == {"count", "pairs"}
    assert two["initial"] is None
    assert two["held_out"]["loss"] < one["held_out"]["loss"]
    model = made(finished, "model", "one")
    lines = read(model.file_path("metrics.jsonl"))
    assert [line["step"] for line in lines] == list(range(1, 26))
    assert lines[-1]["loss"] < lines[0]["loss"] - 1
    assert lines[-1]["tokens"] == model.manifest.counts["tokens"] == 100 * 16
    assert "seconds" not in lines[0]
    assert "seconds" in read(latest(finished, "one") / "metrics.jsonl")[0]
    samples = read_json(made(finished, "samples", "one"), "samples.json")
    assert [sample["kind"] for sample in samples] == ["continuation", "infilling"]
    assert read_json(model, "config.json")["vocab_size"] == 261
    [span] = read_json(model, "training.json")["spans"]
    assert (span["start"], span["until"], span["processes"], span["micro_batch"]) == (0, 25, 1, 2)


def test_tokens_by_source_are_those_of_the_rows(finished):
    _, segments, loss = rows(100, 16, 1)
    expected = [0, 0]
    for r, row in enumerate(segments):
        for start, length, _, _, source, kind, _ in row:
            if kind != 255:
                expected[source] += int(loss[r, max(start, 1) : start + length].sum())
    counts = made(finished, "model", "one").manifest.counts
    assert counts["sources"] == {"count": expected[0], "pairs": expected[1]}
    assert counts["rows"] == 100


def test_checkpoints_kept_are_the_newest(tmp_path, finished, sequence):
    names = sorted(p.name for p in latest(finished, "one").iterdir())
    assert names == ["metrics.jsonl", "row_losses.bin", "step-00000024", "step-00000025", "trajectory.json"]
    kept = trained(tiny_job(tmp_path, sequence, 9, checkpoint_every=1, keep=1, keep_every=4))
    assert [done.step for done in complete(kept.job.folder)] == [4, 8, 9]


def test_killed_at_steps_and_run_again_gives_the_same_bytes(tmp_path, finished):
    run = prepare(tmp_path / "run", checkpoint_every=2)
    for stage, step in (("one", 1), ("one", 4), ("two", 1)):
        command = [sys.executable, str(HERE / "tiny_training.py"), str(run), stage, str(step)]
        assert subprocess.run(command).returncode == -signal.SIGKILL
    coordinate(run)
    assert published(run) == published(finished)


def test_resumed_from_every_step_it_ends_the_same(tmp_path, sequence):
    whole = trained(tiny_job(tmp_path / "whole", sequence, 9, checkpoint_every=1, keep=100))
    for step in range(1, 9):
        part = tiny_job(tmp_path / f"from-{step}", sequence, 9, checkpoint_every=100)
        name = f"step-{step:08d}"
        shutil.copytree(whole.job.folder / name, part.folder / name)
        for name in ("metrics.jsonl", "row_losses.bin"):
            shutil.copyfile(whole.job.folder / name, part.folder / name)
        trainer, seen = Trainer(part, World()), []
        done = trainer.train(lambda step, loss, seen=seen: seen.append(step))
        assert seen == list(range(step + 1, 10))
        for name, tensor in whole.model.state_dict().items():
            assert torch.equal(tensor, trainer.model.state_dict()[name])
        assert done.state["rows"] == 36
        assert done.state["totals"] == whole.totals
        keys = ("step", "loss", "grad_norm", "sources")
        again, first = read(part.folder / "metrics.jsonl"), read(whole.job.folder / "metrics.jsonl")
        assert [[line[k] for k in keys] for line in again] == [[line[k] for k in keys] for line in first]


@pytest.mark.parametrize("documents", [False, True])
def test_accumulation_equals_one_large_batch(tmp_path, sequence, documents):
    batch = Loader(sequence, 4).at(0)
    assert len({int(row.sum()) for row in batch.loss}) > 1, "the rows must differ in their number of targets"
    batch.loss[1] = False
    states = []
    for size in (1, 2, 3, 4):
        changes = {"micro_batch": size, "attention": {"documents": documents}, "optimizer": {"clip": None}}
        one = Trainer(tiny_job(tmp_path, sequence, **changes), World())
        outcome = one.update(batch, 0, 0.0, Interruption())
        gradients = {name: p.grad.clone() for name, p in one.model.named_parameters()}
        states.append((outcome.loss, outcome.norm, gradients))
    for loss, norm, gradients in states[1:]:
        assert loss == pytest.approx(states[0][0], rel=1e-6)
        assert norm == pytest.approx(states[0][1], rel=1e-5)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, states[0][2][name], rtol=1e-4, atol=1e-6)


def test_a_loss_by_rows_scales_the_gradient_alone(tmp_path, sequence):
    batch, found = Loader(sequence, 4).at(0), []
    for loss in ({}, {"per": "row", "weight": 1 / 16}):
        one = Trainer(tiny_job(tmp_path, sequence, loss=loss, optimizer={"clip": None}), World())
        found.append(one.update(batch, 0, 0.0, Interruption()))
    plain, by_rows = found
    assert by_rows.loss == plain.loss
    assert by_rows.norm == pytest.approx(plain.norm * int(batch.loss.sum()) / (4 * 16), rel=1e-5)


def test_a_z_loss_is_in_the_gradient_and_not_in_the_loss_that_is_shown(tmp_path, sequence):
    batch, found = Loader(sequence, 4).at(0), []
    for z_loss in (0.0, 0.5):
        one = Trainer(tiny_job(tmp_path, sequence, loss={"z_loss": z_loss}, optimizer={"clip": None}), World())
        found.append(one.update(batch, 0, 0.0, Interruption()))
    plain, penalized = found
    assert penalized.loss == plain.loss
    one.optimizer.zero_grad()
    tokens, carries = torch.from_numpy(batch.tokens.astype(np.int64)), torch.from_numpy(batch.loss)
    logits = one.model(tokens[:, :-1])[carries]
    each = torch.nn.functional.cross_entropy(logits, tokens[:, 1:][carries], reduction="none")
    (each + 0.5 * logits.logsumexp(-1) ** 2).mean().backward()
    assert penalized.norm == pytest.approx(one.placed.gradient_norm().item(), rel=1e-5)
    assert penalized.norm != pytest.approx(plain.norm, rel=1e-3)


def test_losses_by_source_are_told_apart(sequence):
    sources = target_sources(sequence, 48, 53)  # across the border of the shards
    _, segments, _ = rows(100, 16, 1)
    for r in range(5):
        expected = [source for _, length, _, _, source, _, _ in segments[48 + r] for _ in range(length)]
        assert sources[r].tolist() == expected[1:]
    sums = SourceTotals(["a", "b"])
    sums.add(np.array([0, 0, 1]), np.array([1.0, 3.0, 5.0]), np.array([2, 2, 4]))
    assert sums.loss == 3.0
    assert sums.by_source()["a"] == {"loss": 2.0, "tokens": 2, "bits_per_byte": pytest.approx(4 / np.log(2) / 4)}


def test_a_loss_that_is_not_finite_changes_nothing_and_then_stops(tmp_path, sequence):
    broken = Trainer(tiny_job(tmp_path, sequence), World())
    with torch.no_grad():
        broken.model.norm.weight[0] = float("nan")
    before = {name: tensor.clone() for name, tensor in broken.model.state_dict().items()}
    with pytest.raises(UserError, match=r"not finite for 5 steps in a row[\s\S]*rows 0 to 19"):
        broken.train(lambda step, loss: None)
    for name, tensor in broken.model.state_dict().items():
        assert torch.equal(tensor, before[name]) or tensor.isnan().any()
    lines = read(broken.job.folder / "metrics.jsonl")
    assert [line["skipped"] for line in lines] == ["not finite"] * 5
    assert lines[0]["loss"] is None
    assert lines[0]["grad_norm"] is None
    found = spikes(broken.job.folder)
    assert [(one["step"], one["rows"], one["action"]) for one in found[-2:]] == [
        (3, [12, 15], "skip"),
        (4, [16, 19], "stop"),
    ]
    assert found[0]["sources"].keys() == {"count", "pairs"}


class Untaught(TinyReader):
    """Its first 32 rows carry no loss."""

    def targets(self, start, stop):
        loss = super().targets(start, stop)
        loss[: max(0, 32 - start)] = False
        return loss


def test_batches_without_targets_are_passed_over_and_no_cause_to_stop(tmp_path, sequence):
    one = trained(tiny_job(tmp_path, Untaught(sequence), 10))
    lines = read(one.job.folder / "metrics.jsonl")
    assert [line.get("skipped") for line in lines] == ["no targets"] * 8 + [None] * 2
    assert one.totals["skipped"] == 8
    assert one.totals["tokens"] == sum(line["loss_tokens"] for line in lines) > 0


def test_the_optimizer_is_carried_over_only_when_asked(tmp_path, finished):
    assert made(finished, "model", "one").file_path("optimizer.safetensors").exists()
    run = prepare(tmp_path / "run", carry_optimizer=True, steps=3, samples={"tokens": 0})
    coordinate(run)
    for stage, steps in (("one", 3), ("two", 6)):
        state = load_file(made(run, "model", stage).file_path("optimizer.safetensors"))
        assert state["norm.weight/step"].item() == steps
    assert not [path for path in (run / "artifacts").iterdir() if path.name.startswith("samples")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 128, "micro_batch": None}, "too few for one batch of 128"),
        ({"steps": 26}, "26 steps, but.* 25 batches"),
    ],
)
def test_stages_too_short_are_refused(tmp_path, changes, message):
    run = prepare(tmp_path / "run", **changes)
    with pytest.raises(UserError, match=message):
        coordinate(run)


HARMLESS = {
    "micro_batch": 1,
    "log_every": 3,
    "log_norms_every": 2,
    "record": {"rows": 3, "tokens": 2},
    "log": ["tensorboard"],
    "peak_flops": 1e12,
    "compile": True,
    "recompute": "full",
    "shard": "full",
    "tensor_parallel": 2,
    "long": {"sequence_parallel": 2, "context": "ring", "tile_mlp": 7, "offload_optimizer": True},
    "checkpoint_every": 9,
    "initial_checkpoint": True,
    "keep": 5,
    "keep_every": 7,
    "held_out": {"rows": 3, "every": 2},
    "samples": {"tokens": 9},
}


def test_how_a_training_is_carried_out_is_no_part_of_its_identity():
    assert HARMLESS.keys() == EXECUTION
    first = graph(SECTION)[1].identity
    for key, value in HARMLESS.items():
        assert graph({**SECTION, key: value})[1].identity == first, key
    assert graph({**SECTION, "optimizer": {"learning_rate": 0.02}})[1].identity != first
    assert graph({**SECTION, "guard": {"deviations": 6}})[1].identity != first
