"""What tasks print is found by task."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import toy_graph

from commands import headrace
from headrace.flow.executors import TaskFailed
from headrace.flow.output import outputs

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _workers_find_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)


def test_output_is_found_by_task(tmp_path):
    (tmp_path / "toy.json").write_text(json.dumps({"trouble": "kill once"}))
    toy_graph.coordinate(tmp_path, 2)
    found = [one for one in outputs(tmp_path) if one.artifact]
    assert sorted(one.task for one in found) == [0, 1, 2, 3, 4]  # the task that died had not printed anything yet
    assert {one.text for one in found} == {"a library prints to standard output"}
    assert {(one.phase, one.end) for one in found} == {("write", "done")}
    assert not [one for one in outputs(tmp_path) if not one.artifact]


def test_a_traceback_is_the_output_of_its_task(tmp_path):
    (tmp_path / "toy.json").write_text(json.dumps({"trouble": "defect"}))
    with pytest.raises(TaskFailed):
        toy_graph.coordinate(tmp_path, 1)
    (bad,) = [one for one in outputs(tmp_path) if one.end.startswith("error")]
    assert (bad.task, bad.end) == (1, "error: ZeroDivisionError: one by none")
    assert "Traceback" in bad.text


def test_hostile_logs(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "a.log").write_bytes(b"\xff\x1b[2J" + b"x" * 3_000_000)
    line = {"event": "task", "artifact": "a", "phase": "p", "task": 1, "output": ["../../etc/passwd", 0, 100]}
    (tmp_path / "events.jsonl").write_text(json.dumps(line))
    (rest,) = outputs(tmp_path)
    assert rest.file == "a.log"
    assert len(rest.text) == 1 << 20


def test_the_command(tmp_path):
    (tmp_path / "recipe.yaml").write_text("name: x\nsources: {a: {files: a.txt}}\n")
    (tmp_path / "a.txt").write_text("some words\n")
    run = tmp_path / "run"
    headrace("run", tmp_path / "recipe.yaml", "--out", run, "--until", "documents", "--workers", 1)
    (run / "logs").mkdir(exist_ok=True)
    (run / "logs" / "slurm-1-0.log").write_text("slurmstepd: error: \x1b[31mno\n")
    said = headrace("logs", run).stdout
    assert "== slurm-1-0.log\nslurmstepd: error: \u241b[31mno" in said
    assert not headrace("logs", run, "--task", "documents/read").stdout
    assert json.loads(headrace("logs", run, "--json").stdout)[0]["file"] == "slurm-1-0.log"
    assert headrace("logs", run, "--task", "documents/read/x", check=False).returncode == 2
