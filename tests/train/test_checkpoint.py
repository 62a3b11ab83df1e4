"""Checkpoints are whole or do not count."""

from __future__ import annotations

import os
import shutil

import pytest
import torch

from headrace.errors import UserError
from headrace.train import checkpoint, metrics


def save(folder, step, identity="mine"):
    state = {"identity": identity, "step": step}
    return checkpoint.save(folder, state, {"w": torch.full((3,), float(step))}, {"w/step": torch.tensor(step)})


def test_a_checkpoint_reads_back(tmp_path):
    save(tmp_path, 7)
    [found] = checkpoint.complete(tmp_path, "mine")
    assert found.path.name == "step-00000007"
    assert found.step == 7
    assert found.model()["w"].tolist() == [7.0] * 3
    assert found.optimizer()["w/step"].item() == 7


def test_only_complete_ones_of_the_same_identity_count(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step)
    save(tmp_path, 9, identity="other")
    (tmp_path / "step-00000003" / checkpoint.STATE).unlink()
    shutil.copytree(tmp_path / "step-00000002", tmp_path / ".step-00000004.99.tmp")
    (tmp_path / "step-00000005").mkdir()
    (tmp_path / "step-00000005" / checkpoint.STATE).write_bytes(b'{"identity": "mi')
    (tmp_path / "notes").mkdir()
    assert [c.step for c in checkpoint.complete(tmp_path, "mine")] == [1, 2]
    checkpoint.prune(tmp_path, "mine", 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes", "step-00000002"]
    assert checkpoint.complete(tmp_path / "absent", "mine") == []


@pytest.mark.parametrize("at", ["model.safetensors", "optimizer.safetensors", checkpoint.STATE, "rename"])
def test_a_write_that_breaks_leaves_the_ones_before(tmp_path, monkeypatch, at):
    save(tmp_path, 1)

    def fail(*_):
        raise OSError(28, "No space left on device")

    if at == "rename":
        monkeypatch.setattr(os, "replace", fail)
    elif at == checkpoint.STATE:
        monkeypatch.setattr(checkpoint, "write_json", fail)
    else:
        real = checkpoint.write_tensors
        monkeypatch.setattr(checkpoint, "write_tensors", lambda p, t: fail() if p.name == at else real(p, t))
    with pytest.raises(UserError, match="disk is full"):
        save(tmp_path, 2)
    assert [c.step for c in checkpoint.complete(tmp_path, "mine")] == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_the_same_step_again_replaces_what_was_there(tmp_path):
    save(tmp_path, 4, identity="other")
    save(tmp_path, 4)
    assert [c.step for c in checkpoint.complete(tmp_path, "mine")] == [4]


def test_metrics_go_on_from_the_checkpoint_and_publish_without_times(tmp_path):
    with metrics.Metrics(tmp_path, 0) as log:
        for step in (1, 2, 3):
            log.add({"step": step, "loss": 1.0}, {"seconds": 0.5})
    with open(tmp_path / metrics.FILE, "ab") as f:
        f.write(b'{"step": 4, "lo')  # a kill in the middle of a line
    assert [line["step"] for line in metrics.read(tmp_path / metrics.FILE)] == [1, 2, 3]
    with metrics.Metrics(tmp_path, 2) as log:
        log.add({"step": 3, "loss": 2.0}, {"seconds": 0.5})
    lines = metrics.publish(tmp_path / metrics.FILE, tmp_path / "out")
    assert lines == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 1.0}, {"step": 3, "loss": 2.0}]
    assert metrics.read(tmp_path / "out") == lines
