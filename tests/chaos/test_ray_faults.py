"""Nodes, workers, agents, coordinators and the head of a Ray cluster are lost: the bytes are those of one machine."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.flow.mirror import working_folder

sys.path.insert(0, str(Path(__file__).parents[1] / "flow"))

from object_store import Server, environment

HERE = Path(__file__).parent
THERE = importlib.util.find_spec("ray") is not None
if THERE:
    from faults import Chaos, contents, events_of, expected, started
    from ray_nodes import Nodes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not THERE, reason="Ray is not installed: headrace[ray]"),
]


@pytest.fixture(autouse=True)
def _nodes_find_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of one machine without faults."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)
        return expected(tmp_path_factory.mktemp("local"))


def followed(process: subprocess.Popen[bytes]) -> tuple[int, list[dict]]:
    """The exit code of a coordinator and its events."""
    events = list(events_of(process))
    return process.wait(), events


@pytest.mark.parametrize("number", [1, 2, 4])
def test_nodes_make_the_same_bytes(right, tmp_path, number):
    with Nodes(number) as nodes:
        code, events = followed(started(tmp_path, nodes.address))
    assert code == 0
    assert contents(tmp_path) == right
    assert len({event["node"] for event in events if event["event"] == "task"}) == number


@pytest.mark.parametrize("seed", [1, 2])
def test_faults_cost_nothing(right, tmp_path, seed):
    with Nodes(2) as nodes:
        chaos = Chaos(nodes, seed)
        for number in range(3):
            chaos.run(tmp_path / str(number), 8)
            assert contents(tmp_path / str(number)) == right
    assert sum(chaos.done.values()) >= 10, "too few faults found something to harm"


def test_a_run_goes_on_elsewhere_when_the_head_is_lost(right, tmp_path, monkeypatch):
    # Nodes go on for the minute that it takes Ray to give the head up.
    with monkeypatch.context() as patch, Nodes(0) as nodes:
        patch.setenv("CHAOS_SECONDS", "8")
        nodes.add()
        process, tasks, events = started(tmp_path, nodes.address), 0, []
        for event in events_of(process):
            events.append(event)
            tasks += event["event"] == "task"
            if event["event"] == "task" and tasks == 5:
                nodes.kill_head()
        assert process.wait() == 2
        assert "head node" in events[-1]["what"]
        assert "run the same command" in events[-1]["what"]
    process, more = started(tmp_path), 0  # on this machine, until it is killed
    for event in events_of(process):
        if event["event"] == "phase":
            assert event["done"] == tasks
        more += event["event"] == "task"
        if event["event"] == "task" and more == 5:
            process.kill()
    assert process.wait() == -signal.SIGKILL
    with Nodes(1) as nodes:
        code, events = followed(started(tmp_path, nodes.address))
    assert code == 0
    assert contents(tmp_path) == right
    assert next(event for event in events if event["event"] == "phase")["done"] >= tasks + 4


def test_nodes_with_a_disk_of_their_own_work_on_a_run_in_an_object_store(right, tmp_path, monkeypatch):
    pytest.importorskip("obstore")
    server = Server()
    server.bucket("bucket")
    try:
        with environment(server.url, HEADRACE_CACHE=str(tmp_path / "coordinator")), Nodes(0) as nodes:
            for number in range(2):
                with monkeypatch.context() as patch:
                    patch.setenv("HEADRACE_CACHE", str(tmp_path / f"node-{number}"))
                    nodes.add()
            code, events = followed(started("s3://bucket/runs/x", nodes.address))
            assert code == 0, events[-1]
            assert len({event["node"] for event in events if event["event"] == "task"}) == 2
            monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "reader"))
            made = working_folder("s3://bucket/runs/x") / "artifacts"
            manifests = {name: data for name, data in right.items() if name.endswith("manifest.json")}
            assert {name: (made / name).read_bytes() for name in manifests} == manifests
    finally:
        server.close()


def test_a_node_with_another_headrace_is_not_used(right, tmp_path, monkeypatch):
    package = Path(importlib.util.find_spec("headrace").origin).parent
    shutil.copytree(package, tmp_path / "other" / "headrace")
    source = tmp_path / "other" / "headrace" / "__init__.py"
    source.write_text(source.read_text().replace("__version__ = ", "__version__ = '0.0.1' or "))
    with Nodes(0) as nodes:
        with monkeypatch.context() as patch:
            patch.setenv("PYTHONPATH", str(tmp_path / "other"), prepend=os.pathsep)
            nodes.add()
        code, events = followed(started(tmp_path / "run", nodes.address))
        assert code == 2
        assert "headrace 0.0.1 instead of" in events[-1]["what"]
        nodes.add()
        code, events = followed(started(tmp_path / "run", nodes.address))
    assert code == 0
    assert contents(tmp_path / "run") == right
    assert [event for event in events if event["event"] == "notice" and "0.0.1" in event["text"]]
    assert len({event["node"] for event in events if event["event"] == "task"}) == 1


def test_a_node_that_does_not_see_the_run_folder_is_told(tmp_path):
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("this user cannot hide a folder from a process (unshare --mount)")
    with Nodes(0) as nodes:
        hidden = f"mount -t tmpfs none {tmp_path} && exec ray start --address {nodes.address} --num-cpus 1 --block"
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        other = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", hidden],
            env={**os.environ, "PATH": path},
            stdout=subprocess.DEVNULL,
            process_group=0,
        )
        try:
            code, events = followed(started(tmp_path / "run", nodes.address))
        finally:
            os.killpg(other.pid, signal.SIGTERM)
            other.wait()
    assert code == 2, json.dumps(events[-3:])
    assert "does not see the run folder" in events[-1]["what"]
