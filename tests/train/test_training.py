"""Training as a step of the flow: killed at any step it ends with the same bytes; accumulation; what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_training import TINY, TinySequence, coordinate, graph, rows, targets

from headrace.errors import UserError
from headrace.evaluate.sources import SourceTotals, target_sources
from headrace.flow.artifact import Artifact
from headrace.model.presets import resolve
from headrace.model.transformer import Transformer
from headrace.recipe.training import TrainSection
from headrace.sequence.loader import Loader
from headrace.sequence.store import open_sequence
from headrace.train.loop import Stage, train, update
from headrace.train.metrics import read
from headrace.train.optimizer import AdamW

HERE = Path(__file__).parent
SECTION = {
    "batch": 4,
    "micro_batch": 2,
    "precision": "fp32",
    "checkpoint_every": 4,
    "optimizer": {"learning_rate": 0.01},
    "samples": {"prompts": ["abc"], "infills": [{"prefix": "abc", "suffix": "fgh"}], "tokens": 5},
}


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


def stage(folder: Path, sequence, steps: int = 25, seed: int = 5, **changes) -> Stage:
    section = TrainSection.model_validate({**SECTION, **changes})
    model = Transformer(resolve(TINY, 261))
    model.initialise(seed)
    optimizer = AdamW(model, section.optimizer)
    return Stage("one", "id", section, sequence, folder, steps, model, optimizer)


def test_a_stage_learns_and_hands_over_to_the_next(finished):
    one, two = (Artifact.open(finished / "artifacts" / model.name) for model in targets(finished))
    losses = json.loads(one.file_path("evaluation.json").read_text())
    assert losses["held_out"]["end"]["loss"] < losses["held_out"]["start"]["loss"] - 1
    assert losses["train"]["last"] < losses["train"]["first"] - 1
    assert losses["held_out"]["end"]["sources"].keys() == {"count", "pairs"}
    after = json.loads(two.file_path("evaluation.json").read_text())
    assert after["held_out"]["start"] == losses["held_out"]["end"]
    assert after["held_out"]["end"]["loss"] < after["held_out"]["start"]["loss"]
    lines = read(one.file_path("metrics.jsonl"))
    assert [line["step"] for line in lines] == list(range(1, 26))
    assert lines[-1]["tokens"] == one.manifest.counts["tokens"] == 100 * 16
    assert "seconds" not in lines[0]
    assert "seconds" in read(finished / "checkpoints" / "one" / "metrics.jsonl")[0]
    samples = json.loads(one.file_path("samples.json").read_text())
    assert [sample["kind"] for sample in samples] == ["continuation", "infilling"]
    assert json.loads(one.file_path("config.json").read_text())["vocab_size"] == 261


def test_tokens_by_source_are_those_of_the_rows(finished):
    _, segments, loss = rows(100, 16, 1)
    expected = [0, 0]
    for r, row in enumerate(segments):
        for start, length, _, _, source, kind, _ in row:
            if kind != 255:
                expected[source] += int(loss[r, max(start, 1) : start + length].sum())
    counts = Artifact.open(finished / "artifacts" / targets(finished)[0].name).manifest.counts
    assert counts["sources"] == {"count": expected[0], "pairs": expected[1]}
    assert counts["rows"] == 100


def test_checkpoints_kept_are_the_newest(finished):
    names = sorted(p.name for p in (finished / "checkpoints" / "one").iterdir())
    assert names == ["metrics.jsonl", "step-00000024", "step-00000025"]


def test_killed_at_steps_and_run_again_gives_the_same_bytes(tmp_path, finished):
    run = prepare(tmp_path / "run", checkpoint_every=2)
    for stage, step in (("one", 1), ("one", 4), ("two", 1)):
        command = [sys.executable, str(HERE / "tiny_training.py"), str(run), stage, str(step)]
        assert subprocess.run(command).returncode == -signal.SIGKILL
    coordinate(run)
    assert published(run) == published(finished)


def test_resumed_from_every_step_it_ends_the_same(tmp_path, sequence):
    whole = stage(tmp_path / "whole", sequence, 9, checkpoint_every=1, keep=100)
    train(whole, {}, lambda step, loss: None)
    for step in range(1, 9):
        folder = tmp_path / f"from-{step}"
        folder.mkdir()
        os.symlink(whole.folder / f"step-{step:08d}", folder / f"step-{step:08d}")
        (folder / "metrics.jsonl").write_bytes((whole.folder / "metrics.jsonl").read_bytes())
        part = stage(folder, sequence, 9, seed=77, checkpoint_every=100)
        seen: list[int] = []
        done = train(part, {}, lambda step, loss, seen=seen: seen.append(step))
        assert seen == list(range(step + 1, 10))
        for name, tensor in whole.model.state_dict().items():
            assert torch.equal(tensor, part.model.state_dict()[name])
        assert done.state["loader"]["rows"] == 36
        assert done.state["totals"] == whole_totals(whole)
        keys = ("step", "loss", "grad_norm", "sources")
        again, first = read(folder / "metrics.jsonl"), read(whole.folder / "metrics.jsonl")
        assert [[line[k] for k in keys] for line in again] == [[line[k] for k in keys] for line in first]


def whole_totals(whole: Stage) -> dict:
    state = json.loads((whole.folder / "step-00000009" / "state.json").read_text())
    return state["totals"]


def test_a_changed_sequence_is_refused(tmp_path, sequence, finished):
    train(stage(tmp_path, sequence, 2, checkpoint_every=1), {}, lambda step, loss: None)
    other = open_sequence(finished / "artifacts" / TinySequence("two", 60, seed=2).name)
    with pytest.raises(UserError, match="belongs to another sequence"):
        train(stage(tmp_path, other, 3), {}, lambda step, loss: None)


@pytest.mark.parametrize("documents", [False, True])
def test_accumulation_equals_one_large_batch(tmp_path, sequence, documents):
    batch = Loader(sequence, 4).at(0)
    assert len({int(row.sum()) for row in batch.loss}) > 1, "the rows must differ in their number of targets"
    batch.loss[1] = False
    sources = target_sources(sequence, 0, 4)
    states = []
    for size in (1, 2, 4):
        changes = {"micro_batch": size, "attention": {"documents": documents}, "optimizer": {"clip": None}}
        one = stage(tmp_path, sequence, **changes)
        sums = SourceTotals(sequence.sources)
        norm = update(one, batch, sources, 0.0, sums, one.model.hidden)
        gradients = {name: p.grad.clone() for name, p in one.model.named_parameters()}
        states.append((sums.loss, norm, gradients))
    for loss, norm, gradients in states[1:]:
        assert loss == pytest.approx(states[0][0], rel=1e-6)
        assert norm == pytest.approx(states[0][1], rel=1e-5)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, states[0][2][name], rtol=1e-4, atol=1e-6)


def test_a_loss_by_rows_scales_the_gradient_alone(tmp_path, sequence):
    batch, sources = Loader(sequence, 4).at(0), target_sources(sequence, 0, 4)
    found = []
    for loss in ({}, {"per": "row", "weight": 1 / 16}):
        one = stage(tmp_path, sequence, loss=loss, optimizer={"clip": None})
        sums = SourceTotals(sequence.sources)
        found.append((sums, update(one, batch, sources, 0.0, sums, one.model.hidden)))
    (plain, norm), (by_rows, scaled) = found
    assert by_rows.loss == plain.loss
    assert scaled == pytest.approx(norm * int(batch.loss.sum()) / (4 * 16), rel=1e-5)


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
    broken = stage(tmp_path, sequence, 25)
    with torch.no_grad():
        broken.model.norm.weight[0] = float("nan")
    before = {name: tensor.clone() for name, tensor in broken.model.state_dict().items()}
    with pytest.raises(UserError, match=r"not finite for 5 steps in a row[\s\S]*rows 0 to 20"):
        train(broken, {}, lambda step, loss: None)
    for name, tensor in broken.model.state_dict().items():
        assert torch.equal(tensor, before[name]) or tensor.isnan().any()
    lines = read(tmp_path / "metrics.jsonl")
    assert len(lines) == 5
    assert lines[0]["loss"] is None
    assert lines[0]["grad_norm"] is None


def test_a_batch_without_targets_is_passed_over(tmp_path, sequence):
    one = stage(tmp_path, sequence)
    batch = Loader(sequence, 4).at(0)
    batch.loss[:] = False
    sums = SourceTotals(sequence.sources)
    assert update(one, batch, target_sources(sequence, 0, 4), 0.1, sums, one.model.hidden) is None


def test_the_optimizer_is_carried_over_only_when_asked(tmp_path, finished):
    assert not (finished / "artifacts" / targets(finished)[0].name / "optimizer.safetensors").exists()
    run = prepare(tmp_path / "run", carry_optimizer=True, steps=3, samples={"tokens": 0})
    coordinate(run)
    one, two = (run / "artifacts" / model.name for model in targets(run))
    assert load_file(one / "optimizer.safetensors")["norm.bias/step"].item() == 3
    newest = run / "checkpoints" / "two" / "step-00000003"
    assert load_file(newest / "optimizer.safetensors")["norm.bias/step"].item() == 6
    assert json.loads((two / "samples.json").read_text()) == []


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


def test_identity_leaves_out_how_often_checkpoints_are_written():
    first, second = (graph({**SECTION, **extra})[1].identity for extra in ({}, {"checkpoint_every": 9, "keep": 5}))
    assert first == second
    assert graph({**SECTION, "optimizer": {"learning_rate": 0.02}})[1].identity != first
