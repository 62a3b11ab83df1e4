"""What a training is: which steps it passes over, which was the last of a stage, and how long its log is."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.train.metrics import Metrics, read
from headrace.train.trajectory import Trajectory, begin, latest, trajectories

PLAIN = Trajectory({}, {"batch": 4, "leave_out": []}, 0, 10, {"digest": "x", "rows": 50, "seq_len": 8}, {})
row = st.one_of(st.integers(0, 60), st.integers(0, 10**18))


@given(st.lists(st.tuples(row, row).map(sorted), max_size=4), st.integers(1, 5), st.integers(0, 9), st.integers(0, 20))
def test_steps_with_a_row_left_out_are_passed_over_and_no_others(leave_out, batch, first_step, first_row):
    after = {"trajectory": "t", "step": first_step, "rows": first_row} if first_step else None
    sequence = {**PLAIN.sequence, "first": first_row}
    one = replace(PLAIN, train={"batch": batch, "leave_out": leave_out}, after=after, sequence=sequence)
    steps = range(one.first_step, one.steps)
    expected = {s for s in steps if any(a < one.row(s + 1) and b >= one.row(s) for a, b in leave_out)}
    assert one.passed() == expected


def test_the_trajectory_trained_last_is_so_whatever_the_clock_says(tmp_path):
    one, two = PLAIN, replace(PLAIN, seed=1)
    folders = [each.folder(tmp_path, "s") for each in (one, two)]
    for each, folder in ((one, folders[0]), (two, folders[1]), (one, folders[0])):
        begin(folder, each, None)
    os.utime(folders[0] / "trajectory.json", (1, 1))
    assert trajectories(tmp_path, "s") == folders[::-1]
    begin(folders[1], two, None)
    os.utime(folders[1] / "trajectory.json", (1, 1))
    assert latest(tmp_path, "s") == folders[1]


def test_a_log_that_was_cut_is_as_long_as_it_is(tmp_path):
    log = Metrics(tmp_path, {})
    log.evaluated({"step": 1, "loss": 1.0})
    kept = log.lengths()
    log.evaluated({"step": 2, "loss": 1.0})
    log.close()
    log = Metrics(tmp_path, kept)  # killed, and resumed from step 1
    between = log.lengths()  # of a checkpoint before anything is measured again
    log.evaluated({"step": 2, "loss": 1.0})
    log.close()
    Metrics(tmp_path, between).close()  # killed again
    assert [line["step"] for line in read(tmp_path / "evaluations.jsonl")] == [1]


def test_a_log_that_lost_lines_says_so_and_loses_no_more(tmp_path):
    log = Metrics(tmp_path, {})
    for step in (1, 2):
        log.evaluated({"step": step, "loss": 1.0})
    kept = log.lengths()
    log.close()
    os.truncate(tmp_path / "evaluations.jsonl", kept["evaluations.jsonl"] - 3)
    with pytest.warns(UserWarning, match="lines are missing"):
        log = Metrics(tmp_path, kept)
    log.evaluated({"step": 3, "loss": 1.0})
    log.close()
    assert [line["step"] for line in read(tmp_path / "evaluations.jsonl")] == [1, 3]
