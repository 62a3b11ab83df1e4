"""What ``--watch`` shows of nodes."""

from __future__ import annotations

import io

import pytest

from headrace.cli.progress import Lines
from headrace.cli.watch import Nodes


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def started(node: str, task: int) -> dict:
    return {"event": "start", "artifact": "documents-0badcafe", "phase": "read", "task": task, "node": node}


def ended(node: str, task: int, seconds: float, kind: str = "task") -> dict:
    told = {"seconds": seconds, "rows": 1000, "bytes": 50_000_000, "reason": "signal 9", "message": "no"}
    return {**started(node, task), **told, "event": kind}


@pytest.fixture
def watched() -> tuple[Nodes, Clock]:
    clock = Clock()
    nodes = Nodes(clock)
    for name in ("node-a/17-0", "node-b/17-1", "node-c/17-2"):
        nodes({"event": "node", "node": name, "state": "joined", "workers": 4, "memory": 1, "gpus": 0})
        for task in range(4):
            nodes(started(name, task))
    clock.now = 10.0
    for task in range(3):
        nodes(ended("node-a/17-0", task, 9.0))
        nodes(ended("node-b/17-1", task, 10.0))
    nodes({"event": "node", "node": "node-c/17-2", "state": "lost", "reason": "it left", "tasks": 4})
    nodes(ended("node-b/17-1", 3, 0, "died"))
    nodes(started("node-b/17-1", 77))
    clock.now = 40.0
    return nodes, clock


def test_nodes_tasks_rates_and_stragglers(watched):
    nodes, _ = watched
    assert nodes.lines(79, 20) == [
        "2 nodes, 2 of 8 workers busy, 1 lost, 2 slow tasks",
        "node         busy  done       rate  longest task",
        "node-a/17-0   1/4     3  3.75 MB/s  documents/read/3 40 s, 4.2x the median",
        "node-b/17-1   1/4     3  3.75 MB/s  documents/read/77 30 s, 3.2x the median",
    ]


def test_it_fits_where_it_is_shown(watched):
    nodes, _ = watched
    for number in range(500):
        name = f"a-node-with-a-long-name-{number}\x1b[2J"
        nodes({"event": "node", "node": name, "state": "joined", "workers": 64, "memory": 1, "gpus": 0})
    for width, height in ((80, 24), (40, 6), (200, 50)):
        lines = nodes.lines(width, height)
        assert len(lines) <= height
        assert all(len(line) <= width for line in lines)
        assert lines[-1].startswith("and ")
        assert "\x1b" not in "".join(lines)
        assert "node-a/17-0" in lines[2]  # the slowest first


def test_a_task_that_waits_for_memory_runs_no_more(watched):
    nodes, _ = watched
    nodes({**started("node-a/17-0", 3), "event": "waits"})
    assert nodes.summary() == "2 nodes, 1 of 8 workers busy, 1 lost, 1 slow task"


def test_this_machine_alone():
    clock = Clock()
    nodes = Nodes(clock)
    nodes({key: value for key, value in started("", 5).items() if key != "node"})
    clock.now = 2.0
    assert nodes.lines(79, 9)[0] == "1 node, 1 tasks running"
    assert nodes.lines(79, 9)[2].split() == ["this", "machine", "1", "0", "documents/read/5", "2.0", "s"]


def test_in_a_log_every_quarter_of_a_minute():
    clock, out = Clock(), io.StringIO()
    lines = Lines(out, clock, watch=True)
    lines({"event": "phase", "artifact": "documents-0badcafe", "phase": "read", "tasks": 9, "done": 0})
    lines({"event": "node", "node": "n1", "state": "joined", "workers": 4, "memory": 1, "gpus": 0})
    lines(started("n1", 1))
    clock.now = 16.0
    lines(started("n1", 2))
    assert "1 node, 2 of 4 workers busy" in out.getvalue()
    lines({"event": "node", "node": "n1", "state": "lost", "reason": "it left", "tasks": 2})
    assert out.getvalue().endswith("node n1 is lost: it left; 2 of its tasks start again\n")
