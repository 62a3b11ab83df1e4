"""An evaluation: known answers give known scores; the same bytes for any number of workers and after a kill."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from dataclasses import replace

import pytest
import torch
from reciting import Reciting

from headrace.errors import UserError
from headrace.evaluate.code import Settings, digest, evaluate
from headrace.evaluate.sandbox import Job, Limits, Sandbox
from headrace.evaluate.tasks import Task
from headrace.flow.lock import locked

FILES = ("settings.json", "completions.jsonl", "results.jsonl", "summary.json")
WORDS = [f"{a}{b}" for a in "abcdefgh" for b in "xyz"]


def task(i: int) -> Task:
    prompt = f'def {WORDS[i]}(x):\n    """{"More words. " * (i % 5)}Add {i}."""\n'
    tests = f"def check(f):\n    assert [f(x) for x in range(9)] == [x + {i} for x in range(9)]\ncheck({WORDS[i]})\n"
    return Task(WORDS[i], prompt, ("\ndef",), prompt, Job("", tests, "", (WORDS[i],)), f"    return x + {i}\n")


TASKS = [task(i) for i in range(8)]
# The first five are right, one is wrong, one ends the process, one is no Python.
ANSWERS = {
    one.prompt: [answer + "\ndef more(): pass"]
    for one, answer in zip(
        TASKS,
        [*(t.canonical for t in TASKS[:5]), "    return x\n", "    import os; os._exit(0)\n", "    return )\n"],
        strict=True,
    )
}


def settings(**changes) -> Settings:
    made = Settings("m", digest(TASKS), 1, temperature=0.0, top_p=1.0, tokens=200, seed=1, limits=Limits(), rows=3)
    return replace(made, **changes)


@pytest.fixture(scope="module")
def sandbox():
    torch.set_num_threads(1)
    with Sandbox(unsafe=True) as made:
        yield made


def run(folder, sandbox, workers=2, progress=lambda *_: None, ks=(1,), language=lambda: Reciting(ANSWERS), **changes):
    return evaluate(language, TASKS, settings(**changes), folder, sandbox, ks, workers, progress)


def contents(folder):
    """The bytes of all files, but for the times that programs took."""
    found = {name: (folder / name).read_bytes() for name in FILES}
    return {name: re.sub(rb'"seconds":[0-9.]+,', b"", told) for name, told in found.items()}


@pytest.fixture(scope="module")
def done(sandbox, tmp_path_factory):
    folder = tmp_path_factory.mktemp("done") / "out"
    return folder, run(folder, sandbox)


def test_known_answers_give_known_scores(done):
    folder, summary = done
    assert summary["pass@k"]["1"]["value"] == 5 / 8
    assert summary["statuses"] == {"error": 2, "failed": 1, "passed": 5}
    assert json.loads((folder / "summary.json").read_text()) == summary
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert [line["task_id"] for line in lines] == [one.id for one in TASKS]
    assert [line["passed"] for line in lines] == [True] * 5 + [False] * 3
    assert lines[0]["completion"] == TASKS[0].canonical
    assert "SyntaxError" in lines[7]["detail"]
    assert all(0 <= line["seconds"] < 60 for line in lines)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_bytes_do_not_depend_on_workers(done, sandbox, tmp_path, workers):
    run(tmp_path / "out", sandbox, workers)
    assert contents(tmp_path / "out") == contents(done[0])


EVENTS = [("completions", 0), ("completions", 3), ("completions", 6), ("programs", 1), ("programs", 5), ("programs", 8)]


@pytest.mark.parametrize("event", EVENTS)
def test_a_kill_at_any_event_changes_nothing(done, sandbox, tmp_path, event):
    folder = tmp_path / "out"

    def kill(what, count, total):
        if (what, count) == event:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            run(folder, sandbox, progress=kill)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    while locked(folder):  # by a child that was about to run a program
        time.sleep(0.01)
    for name in FILES[1:3]:  # and in the middle of a line
        if (folder / name).exists():
            with open(folder / name, "ab") as file:
                file.write(b'{"task_id": "ax", "sam')
    heard = []
    run(folder, sandbox, progress=lambda *told: heard.append(told[:2]))
    assert contents(folder) == contents(done[0])
    assert all(count >= event[1] for what, count in heard if what == event[0])  # nothing is done twice


def test_finished_work_needs_no_model(done, sandbox):
    def never():
        raise AssertionError

    before = contents(done[0])
    run(done[0], sandbox, language=never)
    assert contents(done[0]) == before


@pytest.mark.parametrize("name", ["completions.jsonl", "results.jsonl"])
@pytest.mark.parametrize("harm", ["a line less", "a line twice", "another task", "no JSON", "no object", "null"])
def test_changed_results_are_told(done, sandbox, tmp_path, name, harm):
    shutil.copytree(done[0], tmp_path / "out")
    lines = (tmp_path / "out" / name).read_text().splitlines()
    other = {"another task": lines[1].replace('"task_id":"', '"task_id":"z'), "no JSON": "{", "no object": "[1]"}
    lines[1:2] = {"a line less": [], "a line twice": [lines[1]] * 2}.get(harm, [other.get(harm, "null")])
    (tmp_path / "out" / name).write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(UserError, match="have been changed") as told:
        run(tmp_path / "out", sandbox)
    assert name in str(told.value)


def test_several_samples(sandbox, tmp_path):
    unsure = {prompt: [*answers, "    raise ValueError\n"] for prompt, answers in ANSWERS.items()}
    summary = run(tmp_path / "out", sandbox, samples=6, temperature=1.0, ks=(1, 5), language=lambda: Reciting(unsure))
    assert summary["samples"] == 6
    lines = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [(line["task_id"], line["sample"]) for line in lines] == [(t.id, i) for t in TASKS for i in range(6)]
    passed = {t.id: sum(line["passed"] for line in lines if line["task_id"] == t.id) for t in TASKS[:5]}
    assert any(0 < count < 6 for count in passed.values()), passed
    assert 0 < summary["pass@k"]["1"]["value"] < summary["pass@k"]["5"]["value"] <= 5 / 8
