"""A training with `long: auto` is decided for its machine, says so, and gives the same weights."""

from __future__ import annotations

import json

import pytest
from tiny_training import SECTION, coordinate_steps, graph

from headrace.flow.notices import Notice
from headrace.flow.task import TaskContext
from headrace.memory.estimate import estimate
from headrace.memory.machines import MARGIN
from headrace.memory.shape import Shape
from headrace.memory.stage import settings_of
from headrace.recipe.training import TrainSection
from headrace.train import automatic

STEPS = {"steps": 3, "micro_batch": 4, "batch": 4}


def published(run, **train):
    [model, _] = graph({**SECTION, **STEPS, **train})
    *_, folder = coordinate_steps(run, [model.tokenizer, model.sequence, model])
    return model, folder


def test_decided_for_the_machine(tmp_path, monkeypatch):
    plain, expected = published(tmp_path / "plain")
    shape = Shape.of(plain.config(TaskContext(tmp_path / "plain", plain)))
    machine = automatic.at_hand(1, 1)

    def peak(**keys) -> int:
        section = TrainSection.model_validate({**SECTION, **STEPS, **keys})
        return estimate(shape, settings_of(section, 16, shape, machine, "")).peak.total

    without, with_it = peak(), peak(recompute="full")
    assert with_it < without
    monkeypatch.setattr(automatic, "memory_limit", lambda: int((without + with_it) / 2 / (1 - MARGIN)))
    with pytest.warns(Notice, match=r"Stage one: long: auto chose recompute: \w+: a process takes .* GiB"):
        _, folder = published(tmp_path / "auto", long="auto")
    assert (folder / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes()
    [span] = json.loads((folder / "training.json").read_text())["spans"]
    assert span["recompute"] in ("selective", "full")
    assert "long: auto chose recompute" in span["chosen"]


def test_the_machines_processes_share_its_memory():
    one, four = automatic.at_hand(1, 1), automatic.at_hand(4, 4)
    assert four.processes == 4
    assert four.usable == pytest.approx(one.usable / 4, rel=1e-6)
    assert automatic.at_hand(8, 4).nodes == 2
