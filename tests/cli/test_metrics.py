"""Metrics for Prometheus, fetched while a run goes on and read by its own parser."""

from __future__ import annotations

import socket
import urllib.request

import pytest

from commands import headrace
from headrace.cli.metrics import ADDRESS, metrics
from slurm_cluster import free_ports

prometheus = pytest.importorskip("prometheus_client.parser")


def fetched(port: int) -> dict[tuple[str, ...], float]:
    text = urllib.request.urlopen(f"http://{ADDRESS}:{port}/metrics", timeout=10).read().decode()
    samples = [sample for family in prometheus.text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


def test_what_a_cluster_does():
    (port,) = free_ports(1)
    where = {"artifact": 'a"b\n', "phase": "read"}
    with metrics(port) as heard:
        heard({"event": "phase", **where, "tasks": 9, "done": 2})
        for name in ("n1", "n2"):
            heard({"event": "node", "node": name, "state": "joined"})
        for task in range(4):
            heard({"event": "start", **where, "task": task, "node": "n1"})
        heard({"event": "start", **where, "task": 4, "node": "n2"})
        heard({"event": "progress", **where, "rows": 10, "bytes": 1000})
        heard({"event": "task", **where, "task": 0, "seconds": 2.0, "node": "n1", "rows": 1, "bytes": 1})
        heard({"event": "died", **where, "task": 1, "node": "n1"})
        heard({"event": "waits", **where, "task": 2, "node": "n1"})
        heard({"event": "node", "node": "n2", "state": "lost"})
        heard(
            {"event": "progress", "artifact": "model", "phase": "train", "rows": 1, "bytes": 0, "step": 7, "loss": 2.5}
        )
        told = fetched(port)
    what = ('a"b\n', "read")
    assert told["headrace_phase_tasks", *what] == 9
    assert told["headrace_phase_tasks_done", *what] == 3
    assert told["headrace_rows_total", *what] == 10
    assert told["headrace_bytes_total", *what] == 1000
    assert told["headrace_task_seconds_sum", *what] == 2.0
    assert told["headrace_tasks_running", "n1"] == 1
    assert ("headrace_tasks_running", "n2") not in told
    assert (told["headrace_nodes",], told["headrace_nodes_lost_total",]) == (1, 1)
    assert told["headrace_workers_died_total",] == 1
    assert (told["headrace_training_step", "model"], told["headrace_training_loss", "model"]) == (7, 2.5)
    with pytest.raises(OSError, match="refused"):
        fetched(port)


def test_only_this_machine_is_answered():
    (port,) = free_ports(1)
    with metrics(port), socket.socket() as other:
        other.settimeout(5)
        assert other.connect_ex((ADDRESS, port)) == 0
        with socket.socket() as outside:
            outside.bind(("127.0.0.2", port))  # not taken, as it would be by 0.0.0.0


def test_a_taken_port_is_said(tmp_path):
    (tmp_path / "recipe.yaml").write_text("name: x\nsources: {a: {files: a.txt}}\n")
    (tmp_path / "a.txt").write_text("words\n")
    with socket.socket() as holder:
        holder.bind((ADDRESS, 0))
        holder.listen()
        port = holder.getsockname()[1]
        done = headrace("run", tmp_path / "recipe.yaml", "--out", tmp_path / "run", "--metrics", port, check=False)
    assert done.returncode == 2
    assert "Metrics cannot be served" in done.stderr
