"""Tasks on a real Slurm cluster of two nodes on this machine: agents that are cancelled, killed and stopped, a
coordinator that is killed, a run that goes on elsewhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import toy_graph

from headrace.errors import UserError
from headrace.flow.artifact import Artifact
from headrace.flow.events import EventLog, read_events
from headrace.flow.executors import slurm
from headrace.flow.executors.slurm import SlurmCluster, SlurmExecutor
from headrace.flow.runner import make
from headrace.flow.step import topological
from slurm_cluster import Cluster, missing

HERE = Path(__file__).parent

pytestmark = [pytest.mark.skipif(bool(missing()), reason=missing() or "-"), pytest.mark.timeout(200)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as up:
        yield up


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "LOOK_SECONDS", 1.0)
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)


def coordinate(run: Path, nodes: int = 2, workers: int = 2, listener=None, options=(), patience: float = 60) -> None:
    log = EventLog(run, listener)
    with SlurmCluster(run, nodes, workers, 64 << 20, options, patience) as agents:
        executor = SlurmExecutor(agents, "toy_graph:targets", log)
        try:
            make(topological(toy_graph.targets(run)), run, executor, log, 64 << 20)
        finally:
            executor.close()
            log.close()


def toy(run: Path, **changed) -> Path:
    run.mkdir()
    (run / "toy.json").write_text(json.dumps(changed))
    return run


def made(run: Path) -> dict[str, list]:
    return {
        path.name: Artifact.open(path).entries for path in (run / "artifacts").iterdir() if path.suffix != ".partial"
    }


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list]:
    run = toy(tmp_path_factory.mktemp("local") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)
        toy_graph.coordinate(run, 2)
    return made(run)


def test_two_nodes_make_the_same_bytes(cluster, expected, tmp_path):
    run = toy(tmp_path / "run")
    coordinate(run)
    assert made(run) == expected
    nodes = {event["node"].partition("/")[0] for event in read_events(run) if event["event"] == "task"}
    assert nodes == {"n1", "n2"}
    assert not any(path.is_dir() for path in (run / "queue").iterdir())
    assert not cluster.elements("RUNNING,PENDING")


def on(event: str, number: int, do):
    """A listener that does something once, at the given event of a kind."""
    left = [number]

    def hear(told: dict) -> None:
        if told["event"] == event:
            left[0] -= 1
            if left[0] == 0:
                do(told)

    return hear


def agents(run: Path) -> list[int]:
    """The processes of agents on this machine."""
    found = subprocess.run(["pgrep", "-f", f"executors.agent {run}$"], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["scancel", "SIGKILL", "SIGSTOP"])
def test_a_lost_node_costs_its_tasks_alone(cluster, tmp_path, how):
    shards = {"shards": 40}
    local, run = toy(tmp_path / "local", **shards), toy(tmp_path / "run", **shards)
    toy_graph.coordinate(local, 2)
    stopped: list[int] = []

    def strike(told: dict) -> None:
        if how == "scancel":
            cluster.call("scancel", told["node"].rpartition("/")[2].replace("-", "_"))
        else:
            stopped.append(agents(run)[0])
            os.kill(stopped[0], getattr(signal, how))

    coordinate(run, listener=on("task", 3, strike), patience=5)
    assert made(run) == made(local)
    lost = [event["reason"] for event in read_events(run) if event["event"] == "node" and event["state"] == "lost"]
    assert lost
    if how == "SIGSTOP":
        assert lost[0] == "its counter has stood still for 5 s"


@pytest.mark.slow
def test_a_worker_that_dies_is_retried_and_named(cluster, expected, tmp_path):
    run = toy(tmp_path / "once", trouble="kill once")
    coordinate(run)
    assert made(run) == expected
    died = [event for event in read_events(run) if event["event"] == "died"]
    assert [(event["task"], event["reason"], event["at"]) for event in died] == [(1, "signal 9 (SIGKILL)", "row 1000")]
    run = toy(tmp_path / "twice", trouble="kill")
    with pytest.raises(UserError, match="killed its worker twice") as told:
        coordinate(run)
    assert "at row 1000" in told.value.where


COORDINATOR = """
import sys, test_slurm, pathlib
test_slurm.slurm.LOOK_SECONDS = 1.0
kill = test_slurm.toy_graph.suicide(int(sys.argv[2]))
test_slurm.coordinate(pathlib.Path(sys.argv[1]), listener=kill, patience=5)
"""


@pytest.mark.slow
def test_a_killed_coordinator_goes_on_with_the_same_nodes(cluster, expected, tmp_path):
    run = toy(tmp_path / "run")
    paths = [HERE, HERE.parent, *os.environ["PYTHONPATH"].split(os.pathsep)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    done = subprocess.run([sys.executable, "-c", COORDINATOR, str(run), "8"], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    there = set(cluster.elements())
    assert there
    coordinate(run, patience=5)
    assert made(run) == expected
    nodes = {
        event["node"].rpartition("/")[2].replace("-", "_") for event in read_events(run) if event["event"] == "task"
    }
    assert nodes <= there


@pytest.mark.slow
def test_nodes_end_when_their_coordinator_is_gone(cluster, tmp_path):
    run = toy(tmp_path / "run", trouble="slow")
    paths = [HERE, HERE.parent, *os.environ["PYTHONPATH"].split(os.pathsep)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    done = subprocess.run([sys.executable, "-c", COORDINATOR, str(run), "8"], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while cluster.elements("RUNNING,PENDING,COMPLETING"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert not agents(run)


@pytest.mark.slow
def test_begun_here_and_finished_there(cluster, expected, tmp_path):
    run = toy(tmp_path / "run")
    command = [sys.executable, str(HERE / "toy_graph.py"), str(run), "2", "12"]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    coordinate(run)
    assert made(run) == expected


@pytest.mark.slow
def test_jobs_that_end_without_a_word_and_jobs_that_slurm_refuses(cluster, tmp_path, monkeypatch):
    run = toy(tmp_path / "run")
    monkeypatch.setattr(slurm, "agent_command", lambda run: ["/bin/false"])
    with pytest.raises(UserError, match="ended before they said anything"):
        coordinate(run)
    with pytest.raises(UserError, match=r"Slurm does not take the job.*partition"):
        coordinate(run, options=["--partition=none"])


@pytest.mark.slow
def test_why_nothing_runs_yet_is_said(cluster, tmp_path):
    run, told = toy(tmp_path / "run"), []

    def hear(event: dict) -> None:
        if event["event"] == "notice":
            told.append(event["text"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        coordinate(run, listener=hear, options=["--begin=now+1hour"])
    assert told == ["Slurm has no node for the run yet: BeginTime."]
    assert not cluster.elements("RUNNING,PENDING")
