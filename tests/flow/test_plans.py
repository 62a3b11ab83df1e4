"""A plan is read as it was written or not at all, and long plans cost each task no more than short ones."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import orjson
import pytest

from headrace.flow import journal, markers, plans
from headrace.flow.events import EventLog, read_events
from headrace.flow.executors.inline import InlineExecutor
from headrace.flow.plans import Plan, read_plan, write_plan
from headrace.flow.runner import make
from headrace.flow.step import Phase, Step
from headrace.flow.storage import SealError

SPECS = [{"size": 3, "what": "é\u202e\n"}, {}, {"key": "k", "nested": [1, {"sum": 2.5}]}]


def test_specs_are_read_as_they_were_written(tmp_path):
    write_plan(tmp_path / "a", SPECS)
    plan = read_plan(tmp_path / "a")
    assert plan.tasks == 3
    assert plan.specs(range(3)) == SPECS
    assert plan.specs([2, 0]) == [SPECS[2], SPECS[0]]
    write_plan(tmp_path / "a", [])
    assert read_plan(tmp_path / "a").specs([]) == []
    with pytest.raises(FileNotFoundError):
        read_plan(tmp_path / "b")


def test_any_changed_bit_or_cut_is_noticed(tmp_path):
    path, rng = tmp_path / "a", random.Random(0)
    write_plan(path, SPECS)
    whole = path.read_bytes()

    def found() -> list:
        plan = Plan(path)
        return plan.specs(range(plan.tasks))

    for bit in rng.sample(range(8 * len(whole)), 300):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        with pytest.raises(SealError):
            found()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(SealError):
            found()


@dataclass(frozen=True)
class Many(Step):
    """So many tasks that do nothing, twice; those of the second phase look at the first's size."""

    kind = "many"
    VERSION = 1
    tasks: int

    def params(self):
        return {"tasks": self.tasks}

    def inputs(self):
        return {}

    def phases(self):
        specs = [{"size": task % 7} for task in range(self.tasks)]
        return [
            Phase("first", lambda ctx: specs, lambda ctx, spec: {"rows": spec["size"]}),
            Phase("second", lambda ctx: specs, lambda ctx, spec: {"of": ctx.tasks("first")}),
        ]

    def finish(self, ctx):
        return {"counts": {"rows": sum(result["rows"] for result in ctx.results("first"))}}


def counted(run, tasks, monkeypatch) -> Counter:
    """How often files are opened and lines parsed while so many tasks are done."""
    seen: Counter = Counter()

    def counting(module, name, real):
        def called(*arguments):
            seen[name] += 1
            return real(*arguments)

        monkeypatch.setattr(module, name, called)

    real = journal.read_entry
    counting(plans, "Plan", Plan)
    counting(markers, "Markers", markers.Markers)
    for module in (plans, markers):
        counting(module, "read_entry", real)
    run.mkdir()
    log, step = EventLog(run), Many(tasks)
    [made] = make([step], run, InlineExecutor(run, [step], 1 << 20), log, 1 << 20)
    log.close()
    assert made.manifest.counts == {"rows": sum(task % 7 for task in range(tasks))}
    monkeypatch.undo()
    return seen


def test_the_lines_read_for_a_task_do_not_grow_with_the_plan(tmp_path, monkeypatch):
    few, many = counted(tmp_path / "few", 100, monkeypatch), counted(tmp_path / "many", 2000, monkeypatch)
    assert many["Plan"] == few["Plan"] == 2
    assert many["Markers"] == few["Markers"] <= 4
    assert many["read_entry"] <= 20 * few["read_entry"]
    assert many["read_entry"] <= 5 * 2 * 2000


def test_events_of_some_kinds(tmp_path):
    log = EventLog(tmp_path)
    for number in range(3):
        log.emit("task", artifact="a", task=number)
        log.emit("notice", text='an "event":"task" of a name')
    log.emit("phase", artifact='x"event":"task"')
    log.close()
    assert [event["task"] for event in read_events(tmp_path, "task")] == [0, 1, 2]
    assert [event["event"] for event in read_events(tmp_path, "phase", "notice")] == ["notice"] * 3 + ["phase"]
    assert list(read_events(tmp_path, "finished")) == []
    assert len(list(read_events(tmp_path))) == 7


def test_a_plan_is_lines_of_json(tmp_path):
    write_plan(tmp_path / "a", SPECS)
    lines = [orjson.loads(line) for line in (tmp_path / "a").read_bytes().splitlines()]
    assert [set(line) for line in lines] == [{"tasks", "sum"}, *[{"spec", "sum"}] * 3]
