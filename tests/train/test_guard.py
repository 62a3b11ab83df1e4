"""Outlying steps: skipped, rolled back or the end; rows left out; and all of it the same after a resume."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
import torch
from tiny_training import TinyReader, TinySequence, coordinate_steps, tiny_job

from headrace.errors import UserError
from headrace.recipe.training import GuardSection
from headrace.sequence.store import open_sequence
from headrace.train.guard import Guard, forget, outlying, record, spikes
from headrace.train.loop import Trainer
from headrace.train.metrics import read
from headrace.train.world import World

SPOILT = 15  # the step, from 0, whose four rows are noise
GUARD = {"deviations": 6.0, "window": 8}
FAST = {"learning_rate": 0.02}  # so that noise stands out


class Spoilt(TinyReader):
    """The rows of one step are noise."""

    def copy(self, start, stop, out):
        super().copy(start, stop, out)
        for i, row in enumerate(range(start, stop)):
            if row // 4 == SPOILT:
                out[i] = np.random.default_rng(row).integers(128, 256, len(out[i]))


@pytest.fixture(scope="module")
def sequence(tmp_path_factory):
    [folder] = coordinate_steps(tmp_path_factory.mktemp("rows") / "run", [TinySequence("one", 100)])
    return Spoilt(open_sequence(folder))


def finished(job):
    trainer = Trainer(job, World())
    trainer.train(lambda step, loss: None)
    return trainer


def test_an_outlying_step_is_skipped_and_recorded(tmp_path, sequence):
    done = finished(tiny_job(tmp_path, sequence, 20, optimizer=FAST, guard=GUARD))
    [spike] = spikes(done.job.folder)
    assert (spike["step"], spike["rows"], spike["action"]) == (SPOILT, [60, 63], "skip")
    assert spike["reason"] in ("loss", "gradient norm")
    assert spike["sources"].keys() == {"count", "pairs"}
    lines = read(done.job.folder / "metrics.jsonl")
    assert [line["step"] for line in lines if line.get("skipped")] == [SPOILT + 1]
    assert done.totals["skipped"] == 1
    assert done.totals["tokens"] == sum(line["loss_tokens"] for line in lines if "skipped" not in line)


def test_without_deviations_it_trains_on(tmp_path, sequence):
    done = finished(tiny_job(tmp_path, sequence, 20, optimizer=FAST))
    assert spikes(done.job.folder) == []
    assert done.totals["skipped"] == 0


def test_a_step_rolled_back_is_a_step_left_out(tmp_path, sequence):
    with pytest.warns(UserWarning, match="Step 16 of stage one .* is rolled back: its rows 60 to 63"):
        back = finished(
            tiny_job(tmp_path / "back", sequence, 20, optimizer=FAST, guard={**GUARD, "action": "rollback"})
        )
    out = finished(tiny_job(tmp_path / "out", sequence, 20, optimizer=FAST, leave_out=[[61, 62]]))
    for name, tensor in out.model.state_dict().items():
        assert torch.equal(tensor, back.model.state_dict()[name])
    assert back.totals == out.totals
    for trainer in (back, out):
        lines = read(trainer.job.folder / "metrics.jsonl")
        assert [line["step"] for line in lines] == list(range(1, 21))
        assert [(line["step"], line["skipped"]) for line in lines if line.get("skipped")] == [(SPOILT + 1, "left out")]
    again = finished(tiny_job(tmp_path / "back", sequence, 20, optimizer=FAST, guard={**GUARD, "action": "rollback"}))
    assert again.step == 20


def test_steps_rolled_back_one_after_another_are_the_end(tmp_path, sequence):
    class Noise(Spoilt):
        """From one step on, all rows are noise."""

        def copy(self, start, stop, out):
            super().copy(start, stop, out)
            for i, row in enumerate(range(start, stop)):
                if row // 4 >= SPOILT:
                    out[i] = np.random.default_rng(row).integers(128, 256, len(out[i]))

    section = {**GUARD, "action": "rollback", "in_a_row": 3}
    with (
        pytest.warns(UserWarning, match="is rolled back"),
        pytest.raises(UserError, match=r"outlying for 3 steps in a row[\s\S]*up to step 18, rows 60 to 71"),
    ):
        finished(tiny_job(tmp_path, Noise(sequence), 25, optimizer=FAST, guard=section))


def test_steps_that_run_again_are_judged_again(tmp_path):
    for step, action in ((2, "rollback"), (3, "skip"), (7, "skip"), (8, "rollback"), (9, "stop")):
        record(tmp_path, {"step": step, "action": action})
    forget(tmp_path, 6)
    assert [(one["step"], one["action"]) for one in spikes(tmp_path)] == [(2, "rollback"), (3, "skip"), (8, "rollback")]


def test_a_resumed_run_judges_as_an_unbroken_one(tmp_path, sequence):
    class Stop(Exception):  # noqa: N818
        pass

    def at_fourteen(step, loss):
        if step == 14:
            raise Stop

    job = tiny_job(tmp_path, sequence, 20, optimizer=FAST, guard=GUARD)
    with pytest.raises(Stop):
        Trainer(job, World()).train(at_fourteen)
    resumed = Trainer(job, World())
    assert resumed.step == 12
    assert len(resumed.guard.losses) == 8
    resumed.train(lambda step, loss: None)
    assert [spike["step"] for spike in spikes(job.folder)] == [SPOILT]


def test_it_may_be_the_end(tmp_path, sequence):
    with pytest.raises(UserError, match=r"outlying.[\s\S]*step 16, rows 60 to 63"):
        finished(tiny_job(tmp_path, sequence, 20, optimizer=FAST, guard={**GUARD, "action": "stop"}))


def test_what_is_outlying():
    before = deque([1.0, 2.0] * 10)
    assert not outlying(100.0, before, None)
    assert not outlying(2.9, before, 3)  # mean 1.5, deviation 0.5
    assert outlying(3.1, before, 3)
    assert not outlying(-50.0, before, 3)
    assert not outlying(100.0, deque([1.0, 2.0]), 3), "too few to tell"
    guard = Guard(GuardSection())
    assert guard.reason(float("nan"), 1.0) == guard.reason(1.0, float("inf")) == "not finite"
    assert guard.in_a_row == 2
    assert guard.reason(1.0, 1.0) is None
    assert guard.in_a_row == 0
