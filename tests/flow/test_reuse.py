"""Tasks are taken over by their keys: nothing is done twice, nothing damaged is taken, the bytes are a first run's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import toy_graph
from test_runner import HERE, contents, prepare
from toy_graph import coordinate

from headrace.flow.events import read_events


@pytest.fixture(autouse=True)
def _workers_find_the_toys(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)


def run_of(run: Path, *names: str, workers: int = 2) -> dict[str, bytes]:
    """Make the words of some names in a folder; every byte of their artifact."""
    prepare(run, words=list(names))
    coordinate(run, workers)
    [step] = toy_graph.targets(run)
    return {name: data for name, data in contents(run).items() if name.startswith(step.name)}


def worked_on(run: Path) -> int:
    """The tasks that were done since the last run began."""
    return sum(event["event"] == "task" for event in read_events(run))


@pytest.mark.parametrize(
    ("then", "new", "workers"),
    [("abxc", 1, 1), ("abxc", 1, 3), ("ac", 0, 2), ("cba", 0, 2), ("abd", 1, 2), ("xyz", 3, 2), ("aabbcc", 0, 2)],
)
def test_only_new_keys_are_worked_on(tmp_path, then, new, workers):
    run_of(tmp_path / "run", *"abc", workers=workers)
    before = worked_on(tmp_path / "run")
    again = run_of(tmp_path / "run", *then, workers=workers)
    assert worked_on(tmp_path / "run") - before == new
    assert again == run_of(tmp_path / "other", *then)


@pytest.mark.parametrize("what", ["shard", "file", "list", "manifest", "gone"])
def test_what_is_damaged_is_not_taken_over(tmp_path, what):
    run_of(tmp_path / "run", *"abc")
    [folder] = (tmp_path / "run" / "artifacts").iterdir()
    path = {"file": "notes/00001.txt", "list": "tasks.json", "manifest": "manifest.json"}.get(what, "00001.txt")
    if what == "gone":
        (folder / path).unlink()
    else:
        data = bytearray((folder / path).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / path).write_bytes(data)
    before = worked_on(tmp_path / "run")
    again = run_of(tmp_path / "run", *"abcd")
    assert worked_on(tmp_path / "run") - before == (4 if what in ("list", "manifest") else 2)
    assert again == run_of(tmp_path / "other", *"abcd")


def test_what_an_unfinished_artifact_has_done_is_taken_over_too(tmp_path):
    run = prepare(tmp_path / "run", words=["a", "b", "stop"])
    process = subprocess.run([sys.executable, str(HERE / "toy_graph.py"), str(run), "1"], stderr=subprocess.DEVNULL)
    assert process.returncode == 1
    before = worked_on(run)
    again = run_of(run, *"abc")
    assert worked_on(run) - before == 1
    assert again == run_of(tmp_path / "other", *"abc")


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {here!r})
import toy_graph
from headrace.flow import reuse, runner

left = int(sys.argv[2])

def dying(module, name):
    real = getattr(module, name)
    def counted(*arguments):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)
    setattr(module, name, counted)

dying(reuse, "place")
dying(runner, "write_json")
dying(runner, "write_sealed")
dying(runner, "_move")
toy_graph.coordinate(Path(sys.argv[1]), 2)
"""


def test_killed_at_every_file_of_the_take_over_the_bytes_are_the_same(tmp_path):
    expected = run_of(tmp_path / "other", *"abxc")
    run_of(tmp_path / "run", *"abc")
    prepare(tmp_path / "run", words=list("abxc"))
    command = [sys.executable, "-c", KILLED.format(here=str(HERE)), str(tmp_path / "run")]
    for moment in range(100):
        code = subprocess.run([*command, str(moment)]).returncode
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert moment >= 8
    assert run_of(tmp_path / "run", *"abxc") == expected


def test_the_list_of_tasks_is_among_the_files_of_the_manifest(tmp_path):
    run_of(tmp_path / "run", *"ab")
    [folder] = (tmp_path / "run" / "artifacts").iterdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [entry["name"] for entry in manifest["files"]] == ["notes/00000.txt", "notes/00001.txt", "tasks.json"]
    assert all(set(entry) == {"name", "rows", "bytes", "digest"} for entry in manifest["shards"])
