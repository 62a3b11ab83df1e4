"""Checkpoints are whole or do not count."""

from __future__ import annotations

import os
import shutil
import warnings
from contextlib import closing
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from headrace.errors import UserError
from headrace.train import checkpoint, metrics
from headrace.train.world import World


def cut(path):
    os.truncate(path, path.stat().st_size - 3)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def shard(part):
    return f"{part}/shard-00001-model-00001-of-00001.safetensors"


def save(folder, *steps, keep=99, keep_every=None):
    saver = checkpoint.Saver(folder, World(), keep, keep_every)
    try:
        for step in steps:
            tensors = {"w": torch.full((3,), float(step)), "b": torch.tensor(float(step))}
            saver.begin({"step": step}, tensors, {"w/step": torch.tensor(float(step))})
        return saver.wait()
    finally:
        saver.close()


def test_a_checkpoint_reads_back(tmp_path):
    assert save(tmp_path, 7).step == 7
    [found] = checkpoint.complete(tmp_path)
    assert found.path.name == "step-00000007"
    into = {"w": torch.zeros(3), "b": torch.zeros(())}
    checkpoint.read_part(found.path / "model", into, World())
    assert into["w"].tolist() == [7.0] * 3
    assert into["b"].item() == 7
    checkpoint.whole_file(found, "model", tmp_path / "whole.safetensors")
    assert {name: t.tolist() for name, t in load_file(tmp_path / "whole.safetensors").items()} == {
        "w": [7.0] * 3,
        "b": 7.0,
    }
    again = {"w": torch.zeros(3), "b": torch.zeros(())}
    checkpoint.read_part(tmp_path / "whole.safetensors", again, World())
    assert again["w"].tolist() == [7.0] * 3


@pytest.mark.parametrize(
    ("into", "wrong"),
    [({"w": torch.zeros(4)}, r"w is \[3\], expected \[4\]"), ({"other": torch.zeros(3)}, "other is missing")],
)
def test_weights_of_another_model_are_refused(tmp_path, into, wrong):
    save(tmp_path, 1)
    with pytest.raises(UserError, match=f"do not fit the model: {wrong}"):
        checkpoint.read_part(tmp_path / "step-00000001" / "model", into, World())


def test_a_file_that_is_no_weights_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(UserError, match="cannot be read"):
        checkpoint.read_part(tmp_path / "model.safetensors", {"w": torch.zeros(3)}, World())


def test_what_is_written_is_what_was_when_it_began(tmp_path):
    saver, tensor = checkpoint.Saver(tmp_path, World(), 2, None), torch.zeros(1000)
    saver.begin({"step": 1}, {"w": tensor}, {})
    tensor += 1
    saver.wait()
    saver.close()
    into = {"w": torch.ones(1000)}
    checkpoint.read_part(tmp_path / "step-00000001" / "model", into, World())
    assert not into["w"].any()


def test_only_complete_ones_count_and_what_was_interrupted_is_removed(tmp_path):
    save(tmp_path, 1, 2, 3)
    (tmp_path / "step-00000003" / checkpoint.STATE).unlink()
    shutil.copytree(tmp_path / "step-00000002", tmp_path / ".step-00000004.tmp")
    (tmp_path / "step-00000005").mkdir()
    (tmp_path / "step-00000005" / checkpoint.STATE).write_bytes(b'{"step')
    (tmp_path / "notes").mkdir()
    assert [c.step for c in checkpoint.complete(tmp_path)] == [1, 2]
    checkpoint.prune(tmp_path, 1, None)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes", "step-00000002", "step-00000003", "step-00000005"]
    assert checkpoint.complete(tmp_path / "absent") == []


def test_the_newest_are_kept_and_those_of_round_steps(tmp_path):
    save(tmp_path, *range(1, 8), keep=2, keep_every=3)
    assert [c.step for c in checkpoint.complete(tmp_path)] == [3, 6, 7]


@pytest.mark.parametrize("at", ["model", "optimizer", checkpoint.STATE, "rename"])
def test_a_write_that_breaks_leaves_the_ones_before(tmp_path, monkeypatch, at):
    save(tmp_path, 1)

    def fail(*_):
        raise OSError(28, "No space left on device")

    if at == "rename":
        monkeypatch.setattr(os, "replace", fail)
    elif at == checkpoint.STATE:
        monkeypatch.setattr(checkpoint, "write_sealed", fail)
    else:
        real = checkpoint.write_part
        monkeypatch.setattr(checkpoint, "write_part", lambda p, t, g: fail() if p.name == at else real(p, t, g))
    with pytest.raises(UserError, match="disk is full"):
        save(tmp_path, 2)
    assert [c.step for c in checkpoint.complete(tmp_path)] == [1]
    monkeypatch.undo()
    save(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]


def test_metrics_go_on_from_the_checkpoint_and_publish_without_times(tmp_path):
    with closing(metrics.Metrics(tmp_path, {})) as log:
        for step in (1, 2, 3):
            log.add({"step": step, "loss": 1.0}, {"seconds": 0.5})
            log.evaluated({"step": step, "loss": 3.0})
            if step == 2:
                logged = log.lengths()
    with open(tmp_path / metrics.FILE, "ab") as f:
        f.write(b'{"step": 4, "lo')  # a kill in the middle of a line
    assert [line["step"] for line in metrics.read(tmp_path / metrics.FILE)] == [1, 2, 3]
    with closing(metrics.Metrics(tmp_path, logged)) as log:
        log.add({"step": 3, "loss": 2.0}, {"seconds": 0.5})
    assert [line["step"] for line in metrics.read(tmp_path / metrics.EVALUATIONS)] == [1, 2]
    lines = metrics.publish(tmp_path / metrics.FILE, tmp_path / "out")
    assert lines == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 1.0}, {"step": 3, "loss": 2.0}]
    assert metrics.read(tmp_path / "out") == lines


@pytest.mark.parametrize("name", [shard("model"), shard("optimizer"), checkpoint.STATE])
@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_counts(tmp_path, name, damage):
    run = tmp_path / "run"
    folder = run / "checkpoints" / "stage" / "trajectory"
    folder.mkdir(parents=True)
    save(folder, 1, 2)
    damage(folder / "step-00000002" / name)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert checkpoint.newest(folder, run).step == 1
    if name != checkpoint.STATE:  # without a state it is as if it had never been finished
        assert [str(one.message) for one in said if name in str(one.message)]
        assert (run / "damaged" / "step-00000002-1").is_dir()
    damage(folder / "step-00000001" / name)
    assert checkpoint.newest(folder, run) is None
