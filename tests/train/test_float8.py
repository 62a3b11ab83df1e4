"""Products in 8 bits: what is converted, that the loop trains and resumes so, and what is refused before any work."""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util

import pytest
import torch
from pydantic import ValidationError
from tiny_training import TinySequence, coordinate_steps, tiny_job

from headrace.errors import UserError
from headrace.recipe.training import TrainSection
from headrace.sequence.store import open_sequence
from headrace.train.installed import check_installed
from headrace.train.loop import Trainer
from headrace.train.metrics import read
from headrace.train.world import World

FP8 = TrainSection(precision="fp8")


def test_the_loop_trains_in_8_bits_emulated_and_goes_on_exactly(tmp_path):
    pytest.importorskip("torchao")
    from torchao.float8.float8_linear import Float8Linear

    [folder] = coordinate_steps(tmp_path / "rows", [TinySequence("one", 100)])
    sequence = open_sequence(folder)

    def trained(run, precision, stop_after=None):
        def stopping(step, loss):
            if step == stop_after:
                raise KeyboardInterrupt

        trainer = Trainer(tiny_job(tmp_path / run, sequence, 16, precision=precision), World())
        with contextlib.suppress(KeyboardInterrupt):
            trainer.train(stopping)
        return trainer

    fp8, bf16 = trained("fp8", "fp8"), trained("bf16", "bf16")
    converted = {name for name, module in fp8.model.named_modules() if isinstance(module, Float8Linear)}
    parts = ("attention.qkv", "attention.out", "ffn.gate", "ffn.up", "ffn.down")
    assert converted == {f"blocks.{i}.{part}" for i in range(2) for part in parts}
    assert fp8.model.state_dict().keys() == bf16.model.state_dict().keys()
    assert {tensor.dtype for tensor in fp8.model.state_dict().values()} == {torch.float32}
    ours, theirs = ([line["loss"] for line in read(one.job.folder / "metrics.jsonl")] for one in (fp8, bf16))
    assert ours != theirs
    assert ours == pytest.approx(theirs, rel=0.02)
    assert ours[-1] < 0.9 * ours[0]
    trained("parts", "fp8", stop_after=6)
    rest = trained("parts", "fp8")
    for name, tensor in fp8.model.state_dict().items():
        assert torch.equal(tensor, rest.model.state_dict()[name]), name


def test_what_is_lacking_is_said_before_any_work(monkeypatch):
    there = importlib.machinery.ModuleSpec("torchao", None)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torchao" else find(name))
    with pytest.raises(UserError, match=r"torchao, which is not installed[\s\S]*precision: bf16"):
        check_installed([FP8])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: there if name == "torchao" else find(name))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"there is no GPU here[\s\S]*precision: bf16"):
        check_installed([FP8])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    with pytest.raises(UserError, match=r"capability 8\.0"):
        check_installed([FP8])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    check_installed([FP8])
    with pytest.raises(ValidationError, match="not split over processes"):
        TrainSection(precision="fp8", tensor_parallel=2)
