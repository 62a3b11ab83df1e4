"""Checkpoints are whole or do not count."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

import pytest
import torch

from headrace.errors import UserError
from headrace.train import checkpoint, metrics


def cut(path):
    os.truncate(path, path.stat().st_size - 3)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


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


@pytest.mark.parametrize("at", ["model.safetensors", "optimizer.safetensors", checkpoint.STATE, metrics.FILE, "rename"])
def test_a_write_that_breaks_leaves_the_ones_before(tmp_path, monkeypatch, at):
    (tmp_path / metrics.FILE).write_bytes(b"")
    save(tmp_path, 1)

    def fail(*_):
        raise OSError(28, "No space left on device")

    if at == "rename":
        monkeypatch.setattr(os, "replace", fail)
    elif at == checkpoint.STATE:
        monkeypatch.setattr(checkpoint, "write_sealed", fail)
    elif at == metrics.FILE:
        monkeypatch.setattr(shutil, "copyfile", fail)
    else:
        real = checkpoint.write_tensors
        monkeypatch.setattr(checkpoint, "write_tensors", lambda p, t: fail() if p.name == at else real(p, t))
    with pytest.raises(UserError, match="disk is full"):
        save(tmp_path, 2)
    assert [c.step for c in checkpoint.complete(tmp_path, "mine")] == [1]
    assert sorted(p.name for p in tmp_path.iterdir()) == [metrics.FILE, "step-00000001"]


def test_the_same_step_again_replaces_what_was_there(tmp_path):
    save(tmp_path, 4, identity="other")
    save(tmp_path, 4)
    assert [c.step for c in checkpoint.complete(tmp_path, "mine")] == [4]


def test_metrics_go_on_from_the_checkpoint_and_publish_without_times(tmp_path):
    with metrics.Metrics(tmp_path) as log:
        for step in (1, 2, 3):
            log.add({"step": step, "loss": 1.0}, {"seconds": 0.5})
            if step == 2:
                done = save(tmp_path, step)
    with open(tmp_path / metrics.FILE, "ab") as f:
        f.write(b'{"step": 4, "lo')  # a kill in the middle of a line
    assert [line["step"] for line in metrics.read(tmp_path / metrics.FILE)] == [1, 2, 3]
    with metrics.Metrics(tmp_path, done.metrics) as log:
        log.add({"step": 3, "loss": 2.0}, {"seconds": 0.5})
    lines = metrics.publish(tmp_path / metrics.FILE, tmp_path / "out")
    assert lines == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 1.0}, {"step": 3, "loss": 2.0}]
    assert metrics.read(tmp_path / "out") == lines


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", metrics.FILE, checkpoint.STATE])
@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_counts(tmp_path, name, damage):
    folder = tmp_path / "run" / "checkpoints" / "stage"
    folder.mkdir(parents=True)
    (folder / metrics.FILE).write_bytes(b'{"step": 1, "loss": 1.0}\n')
    for step in (1, 2):
        save(folder, step)
    damage(folder / "step-00000002" / name)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert checkpoint.newest(folder, "mine").step == 1
    if name != checkpoint.STATE:  # without a state it is as if it had never been finished
        assert [str(one.message) for one in said if name in str(one.message)]
        assert (tmp_path / "run" / "damaged" / "step-00000002-1").is_dir()
    damage(folder / "step-00000001" / name)
    assert checkpoint.newest(folder, "mine") is None
