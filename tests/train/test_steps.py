"""Rows of steps and steps of rows against the loop's own arithmetic, across edits; the log, read in parts."""

from __future__ import annotations

from dataclasses import replace

import orjson
from hypothesis import given
from hypothesis import strategies as st

from headrace.train import guard, metrics
from headrace.train.consumption import FATES
from headrace.train.steps import Steps
from headrace.train.trajectory import Trajectory, begin

SEQUENCE = {"digest": "now", "rows": 1000, "seq_len": 8}


def trained(run, batch=4, steps=20, after=None, leave_out=(), sequence=SEQUENCE, logged=0):
    """A trajectory's folder, with a log."""
    made = Trajectory({}, {"batch": batch, "leave_out": list(leave_out)}, 1, steps, sequence, {}, after)
    folder = made.folder(run, "one")
    begin(folder, made, None)
    lines = [{"step": step, "loss": step / 2} for step in range(made.first_step + 1, logged + 1)]
    (folder / metrics.FILE).write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return made, folder


def test_steps_of_an_edited_training(tmp_path):
    """Each step took the rows after those of the step before it, whatever their batch."""
    one, _ = trained(tmp_path, logged=8)
    after = {"trajectory": one.identity, "step": 8, "rows": one.row(8)}
    two, folder = trained(tmp_path, 10, 15, after, [[35, 48], [112, 112]], logged=12)
    guard.record(folder, {"step": 10, "reason": "loss"})
    steps = Steps.of(tmp_path, "one", "now", two)
    assert (steps.first, steps.last, steps.done) == (1, 15, 12)
    rows = 0
    for step in range(1, 16):
        leg = steps.at(step)
        batch = 4 if step <= 8 else 10
        assert leg.rows(step) == (rows, rows + batch)
        assert leg.trajectory == (one if step <= 8 else two).identity
        assert [one.step for one in steps.of_rows(range(rows, rows + batch))] == [step] * batch
        rows += batch
    assert steps.at(0) is None
    assert steps.at(16) is None
    assert steps.of_row(rows).fate == "unused"
    fates = {step: steps.fate(step) for step in range(9, 16)}
    assert fates == {9: "left_out", 10: "left_out", 11: "skipped", 12: "trained", 13: "left", 14: "left", 15: "left"}
    assert set(fates.values()) < set(FATES)
    assert [line["step"] for line in steps.log(6, 10)] == [6, 7, 8, 9, 10]


def test_rows_of_a_sequence_that_was_replaced(tmp_path):
    """Steps before the edit took other rows, so that none of these were taken by them."""
    one, _ = trained(tmp_path, logged=8, sequence={**SEQUENCE, "digest": "before"})
    two, _ = trained(tmp_path, 4, 20, {"trajectory": one.identity, "step": 8, "rows": 32}, logged=9)
    steps = Steps.of(tmp_path, "one", "now", two)
    assert [steps.at(step).current for step in (1, 8, 9, 20)] == [False, False, True, True]
    assert [steps.of_row(row).step for row in (0, 31, 32, 79, 80)] == [None, None, 9, 20, None]


def test_rows_before_the_first_are_unused(tmp_path):
    made, _ = trained(tmp_path, sequence={**SEQUENCE, "first": 6})
    steps = Steps.of(tmp_path, "one", "now", made)
    assert [steps.of_row(row).step for row in (0, 5, 6, 9, 10)] == [None, None, 1, 1, 2]
    assert replace(made, steps=21).identity != made.identity


@given(st.data())
def test_parts_of_a_log(tmp_path_factory, data):
    """Whatever is broken off or damaged in it, as the whole is read."""
    draw = data.draw
    count = draw(st.integers(0, 400))
    every, wide = draw(st.integers(1, 5)), draw(st.sampled_from([10, 3000]))
    lines = [orjson.dumps({"step": s * every, "loss": 1.0, "x": "y" * (wide + s % 7)}) for s in range(1, count + 1)]
    for _ in range(draw(st.integers(0, 2))):
        lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from([b'{"step": 3, "lo', b"", b"[]", b"\xff"])))
    path = tmp_path_factory.getbasetemp() / "log.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines) + draw(st.sampled_from([b"", b'{"step": 9', b"\n"])))
    whole = metrics.read(path)
    assert metrics.last(path) == (whole[-1] if whole else None)
    first = draw(st.integers(-3, (count + 2) * every))
    last = draw(st.integers(first, (count + 3) * every))
    assert metrics.between(path, first, last) == [line for line in whole if first <= line["step"] <= last]


def test_no_log(tmp_path):
    assert metrics.last(tmp_path / "none") is None
    assert metrics.between(tmp_path / "none", 0, 9) == []
