"""The simulated cluster: what the real coordinator does there is done once, and costs no more with more nodes."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections import Counter

import orjson
import pytest

from bench.cluster import Cluster, corpus_rounds, simulate
from headrace.flow.events import read_events
from headrace.flow.executors.pool import Node
from headrace.planning.cluster import Round


def test_every_task_is_done_once_whatever_nodes_are_lost(tmp_path):
    told = simulate(corpus_rounds(2e9, True), Cluster(20, 4, hours=0.02, absent=5.0), tmp_path)
    done = Counter((e["artifact"], e["phase"], e["task"]) for e in read_events(tmp_path) if e["event"] == "task")
    assert told["nodes_lost"] > 3
    assert set(done.values()) == {1}
    assert len(done) == told["tasks"]
    assert told["makespan_s"] >= told["ideal_s"]


def test_a_task_looks_at_no_more_nodes_in_a_larger_cluster(tmp_path, monkeypatch):
    looked: Counter = Counter()
    real = Node.open.fget

    def counted(node):
        looked[nodes] += 1
        return real(node)

    monkeypatch.setattr(Node, "open", property(counted))
    for nodes in (20, 200):
        simulate([Round("many", "do", 2000, 2e5)], Cluster(nodes, 2, hours=1e9), tmp_path / str(nodes))
    # Besides what is given out at first, and when no task is left for those that end.
    assert looked[200] < 1.5 * looked[20]
    assert looked[200] < 8 * 2000


def test_a_throttled_storage_is_what_a_run_waits_for(tmp_path):
    rounds = [Round("many", "do", 200, 200.0, reads=20_000)]
    told = simulate(rounds, Cluster(10, 10, storage="s3", requests=100.0), tmp_path)
    assert told["makespan_s"] >= 200


SLOW = """
import json, sys
from pathlib import Path
from bench.cluster import Cluster, simulate
from headrace.planning.cluster import Round
print(json.dumps(simulate([Round("many", "do", 100_000, 6e6)], Cluster(1000, 10), Path(sys.argv[1]))))
"""


@pytest.mark.slow
def test_a_hundred_thousand_tasks_take_little_memory_and_few_files(tmp_path):
    done = subprocess.run([sys.executable, "-c", SLOW, str(tmp_path)], capture_output=True, check=True)
    told = orjson.loads(done.stdout)
    assert told["coordinator_peak_mb"] < 500  # the promise is 1 GB; it was 150 MB
    assert told["open_files"] < 20
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 1 << 20
