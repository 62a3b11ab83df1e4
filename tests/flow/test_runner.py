"""The laws of the flow: same bytes for any workers, kills cost nothing, a dead worker is seen, errors are told."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import toy_graph
from toy_graph import coordinate, targets

from headrace.errors import UserError
from headrace.flow.artifact import Artifact
from headrace.flow.events import read_events
from headrace.flow.executors import TaskFailed
from headrace.flow.journal import read_journal
from headrace.flow.lock import lock, locked
from headrace.flow.step import topological
from quick import quick

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _workers_find_the_toys(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)


def prepare(run: Path, **params) -> Path:
    run.mkdir(exist_ok=True)
    (run / "toy.json").write_text(json.dumps(params))
    return run


def start(run: Path) -> subprocess.Popen:
    """A coordinator in a process of its own, to be killed."""
    return subprocess.Popen([sys.executable, str(HERE / "toy_graph.py"), str(run), "2"], stderr=subprocess.DEVNULL)


def alive(pid: int) -> bool:
    """Whether a worker of ours has this process id."""
    try:
        return b"headrace" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def contents(run: Path) -> dict[str, bytes]:
    """Every byte that was published."""
    base = run / "artifacts"
    return {str(p.relative_to(base)): p.read_bytes() for p in sorted(base.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)
        run = prepare(tmp_path_factory.mktemp("expected") / "run")
        coordinate(run, 1)
    return contents(run)


@pytest.mark.parametrize("workers", [2, 3])
def test_same_bytes_for_any_number_of_workers(tmp_path, expected, workers):
    run = prepare(tmp_path / "run")
    coordinate(run, workers)
    assert contents(run) == expected


def test_small_memory_gives_the_same_bytes(tmp_path, expected):
    run = prepare(tmp_path / "run")
    coordinate(run, 1, memory=1 << 12)  # forces external merges of a few records each
    assert contents(run) == expected


def test_artifacts_hold_every_row_in_keyed_order(expected, tmp_path):
    run = prepare(tmp_path / "run")
    coordinate(run, 2)
    shuffled = topological(targets(run))[-1]
    artifact = Artifact.open(run / "artifacts" / shuffled.name)
    rows = np.concatenate([np.load(artifact.shard_path(i)) for i in range(len(artifact.shards))])
    assert sorted(rows) == list(range(5000))
    keys = toy_graph.keyed(toy_graph.salt(0, "order"), rows)
    assert (np.diff(keys.astype(object)) > 0).all()
    assert artifact.manifest.counts == {"rows": 5000}
    assert artifact.locate(4999)[0] == 3


@pytest.mark.parametrize("seed", quick(range(3), 0))
def test_killed_again_and_again_the_run_ends_with_the_same_bytes(tmp_path, expected, seed):
    """SIGKILL of the coordinator after a few events, and a new run, until one comes to its end."""
    rng = random.Random(seed)
    run = prepare(tmp_path / "run")
    killed = 0
    while True:
        command = [sys.executable, str(HERE / "toy_graph.py"), str(run), "2", str(rng.randint(4, 24))]
        code = subprocess.run(command, stderr=subprocess.DEVNULL).returncode
        if code == 0:
            break
        assert code == -signal.SIGKILL
        killed += 1
    assert killed > 2
    assert contents(run) == expected


@pytest.mark.parametrize("trouble", ["slow", "busy"])
def test_workers_leave_when_their_coordinator_is_killed(tmp_path, trouble):
    run = prepare(tmp_path / "run", trouble=trouble)
    process = start(run)
    while not any(e["event"] == "task" for e in read_events(run)):
        time.sleep(0.05)
    workers = [e["pid"] for e in read_events(run) if e["event"] == "worker"]
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(
        Path(f"/proc/{pid}").exists() and b"headrace" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in workers
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_worker_that_dies_once_is_reported_and_its_task_done_again(tmp_path, expected):
    run = prepare(tmp_path / "run", trouble="kill once")
    coordinate(run, 2)
    assert contents(run) == expected
    died = [e for e in read_events(run) if e["event"] == "died"]
    assert [(e["task"], e["reason"], e["at"]) for e in died] == [(1, "signal 9 (SIGKILL)", "row 1000")]


def test_the_second_try_is_careful(tmp_path, expected):
    run = prepare(tmp_path / "run", trouble="careful?")
    coordinate(run, 2)
    assert contents(run) == expected


@pytest.mark.parametrize(("trouble", "reason"), [("kill", "signal 9"), ("exit", "exit code 3")])
def test_a_task_that_kills_two_workers_stops_the_run_and_names_the_document(tmp_path, trouble, reason):
    run = prepare(tmp_path / "run", trouble=trouble)
    with pytest.raises(UserError, match="killed its worker twice") as caught:
        coordinate(run, 2)
    assert reason in caught.value.what
    assert "at row 1000" in caught.value.where
    [journal] = (run / "artifacts").glob("numbers-*.partial/done/write.jsonl")
    assert len(list(read_journal(journal))) >= 1  # what others had finished is kept
    prepare(run)
    coordinate(run, 2)  # and the run goes on from there once the trouble is gone


def test_a_users_error_comes_through_and_nothing_done_is_lost(tmp_path, expected):
    run = prepare(tmp_path / "run", trouble="user")
    with pytest.raises(UserError, match="A bad row"):
        coordinate(run, 1)
    prepare(run)
    coordinate(run, 1)
    assert contents(run) == expected
    phases = [e for e in read_events(run) if e["event"] == "phase" and e["phase"] == "write"]
    assert [p["done"] for p in phases] == [0, 1]


def test_a_defect_is_told_with_the_place_of_its_traceback(tmp_path):
    run = prepare(tmp_path / "run", trouble="defect")
    with pytest.raises(TaskFailed, match=r"ZeroDivisionError.*traceback is in") as caught:
        coordinate(run, 1)
    log = Path(str(caught.value).split("traceback is in ")[1].rstrip(")"))
    assert "one by none" in log.read_text()


def test_two_coordinators_cannot_share_a_folder(tmp_path):
    assert not locked(tmp_path)
    with lock(tmp_path):
        assert locked(tmp_path)
        with pytest.raises(UserError, match="Another headrace run"), lock(tmp_path):
            pass
    assert not locked(tmp_path)


def test_an_unwritable_folder_is_a_users_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="A file is where a folder should be"), lock(tmp_path / "file" / "run"):
        pass


def test_an_unfinished_artifact_does_not_open(tmp_path):
    with pytest.raises(UserError, match="not a finished artifact"):
        Artifact.open(tmp_path)


def test_identity_depends_on_params_inputs_and_version_only(monkeypatch):
    base = toy_graph.Shuffled(toy_graph.Numbers())
    assert base.identity == toy_graph.Shuffled(toy_graph.Numbers(trouble="slow")).identity
    assert base.identity != toy_graph.Shuffled(toy_graph.Numbers(rows=7)).identity
    assert base.identity != toy_graph.Shuffled(toy_graph.Numbers(), partitions=8).identity
    monkeypatch.setattr(toy_graph.Numbers, "VERSION", 2)
    assert base.identity != toy_graph.Shuffled(toy_graph.Numbers()).identity
