"""Several Ray nodes on this machine, to be killed: each is a raylet with its own workers, on one address."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray._private.node import Node
from ray.cluster_utils import Cluster

CORES = 2  # of a node
TRIES = 5
OBJECTS = 80 << 20  # the least that Ray takes


class Nodes:
    """A cluster: a head without processors, and nodes that come and go; a context manager.

    Args:
        number: of nodes at first.
    """

    def __init__(self, number: int) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        about = {"num_cpus": 0, "object_store_memory": OBJECTS, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=about)
        self.address: str = self._cluster.address
        self.nodes: list[Node] = []
        for _ in range(number):
            self.add()

    def add(self) -> None:
        """A node joins."""
        for _ in range(TRIES):
            with suppress(Exception):  # Ray waits for 30 s, which is little on a machine that is busy
                self.nodes.append(self._cluster.add_node(wait=False, num_cpus=CORES, object_store_memory=OBJECTS))
                return
        raise TimeoutError("no Ray node can be started")

    def kill(self, name: str) -> None:
        """A node is lost at once, with all that runs there.

        Args:
            name: as events have it; it ends in the beginning of Ray's name.
        """
        for node in self.nodes:
            if node.node_id.startswith(name.rpartition("-")[2]):
                self.nodes.remove(node)
                self._cluster.remove_node(node, allow_graceful=False)
                return

    def kill_head(self) -> None:
        """The head node is lost, as a machine is: its processes end at once."""
        for processes in self._cluster.head_node.all_processes.values():
            for process in processes:
                process.process.send_signal(signal.SIGKILL)

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *_: Any) -> None:
        self._cluster.shutdown()


def coordinator(script: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """A coordinator in a process of its own, to be killed."""
    return subprocess.Popen([sys.executable, str(script), *arguments])
