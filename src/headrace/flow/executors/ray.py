"""Workers on the nodes of a Ray cluster, which come and go."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from headrace.errors import UserError
from headrace.flow.events import EventLog
from headrace.flow.executors import Request
from headrace.flow.executors.pool import Node, Pool

CLOSING_SECONDS = 20  # for a Ray of our own to end


class RayCluster:
    """The connection to a cluster, for as long as a run lasts; a context manager.

    Args:
        run: the run folder, which all nodes see under the same path, or a mirror.
        address: ``HOST:PORT`` of the head node; ``local`` starts Ray on this machine; None does what ``RAY_ADDRESS``
            says, joins what runs on this machine, or else starts it.
        nodes: how many at most, which an autoscaler is asked for; None for those that are there.
        workers: how many on each node at most; None for one a free processor.
        memory: bytes for data on each node; None for half of what is free there.

    Raises:
        UserError: Ray is not installed, or the address is one of Ray Client.
    """

    def __init__(
        self, run: Path, address: str | None, nodes: int | None, workers: int | None, memory: int | None
    ) -> None:
        if importlib.util.find_spec("ray") is None:
            raise UserError("Ray is not installed.", "--executor ray", "pip install 'headrace[ray]'")
        if "://" in (address or os.environ.get("RAY_ADDRESS") or ""):
            raise UserError(
                "Ray Client cannot be used: what it carries is lost with its connection.",
                "--address",
                "Start headrace on a machine of the cluster, with HOST:PORT or through `ray job submit`.",
            )
        self.run = run
        self.log = run / "logs" / f"ray-{os.getpid()}.log"
        self._options = {"address": address, "nodes": nodes, "workers": workers, "memory": memory}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def tell(self, command: dict[str, Any]) -> None:
        """Send a command, the first of which connects; if the connection is gone, :meth:`hear` will say so."""
        if self._process is None:
            self._process = self._connect()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(orjson.dumps(command, option=orjson.OPT_APPEND_NEWLINE))
            self._process.stdin.flush()

    def _connect(self) -> subprocess.Popen[bytes]:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        options = orjson.dumps(self._options).decode()
        with open(self.log, "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "headrace.flow.executors.ray_driver", str(self.run), str(os.getpid()), options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                process_group=0,  # Ctrl-C goes to the coordinator
            )

    def hear(self) -> dict[str, Any]:
        """Wait for the next answer; see :mod:`headrace.flow.executors.ray_driver`.

        Raises:
            UserError: there is no cluster, or its head node is lost.
        """
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise UserError(
                "The connection to the Ray cluster is lost: its head node has ended, or cannot be reached.",
                str(self.log),
                "Start the cluster again, then run the same command: finished tasks are kept.",
            )
        answer: dict[str, Any] = orjson.loads(line)
        if answer["say"] == "refused":
            raise UserError(answer["what"], answer["where"], answer["fix"])
        return answer


class RayExecutor(Pool):
    """Runs tasks on the nodes of a cluster.

    Args:
        cluster: the connection.
        graph: ``module:function`` that rebuilds the graph from the run folder.
        log: receives all events.
    """

    def __init__(self, cluster: RayCluster, graph: str, log: EventLog) -> None:
        super().__init__(log)
        self._cluster, self._graph, self._begun = cluster, graph, False

    def submit(self, requests: list[Request]) -> None:
        """Submit the tasks of a phase."""
        if not self._begun:  # a run that has nothing to do needs no cluster
            self._begun = True
            self._cluster.tell({"do": "begin", "graph": self._graph})
        super().submit(requests)

    def ask(self, node: Node, request: dict[str, Any]) -> None:
        """Have a worker of a node run a task."""
        self._cluster.tell({"do": "ask", "node": node.name, "request": request})

    def listen(self) -> None:
        """Wait until nodes say something, join or are lost.

        Raises:
            UserError: there is no cluster, its head node is lost, or none of its nodes can be used.
        """
        answer = self._cluster.hear()
        say = answer.pop("say")
        node = next((node for node in self.nodes if node.name == answer.get("node")), None)
        if say == "joined":
            self.joined(Node(answer["node"], answer["workers"], answer["memory"], answer["gpus"]))
        elif say == "heard" and node is not None:
            for message in answer["messages"]:
                self.heard(node, message)
        elif say == "lost" and node is not None:
            self.lost(node, answer["reason"])
        elif say == "unfit":
            if not answer["others"]:
                raise UserError(f"A node cannot be used. {answer['what']}", answer["where"], answer["fix"])
            self.log.notice(f"{answer['where']} is not used. {answer['what']} {answer['fix']}")
        elif say == "waiting":
            self.log.notice(
                "No node of the Ray cluster has a free processor; waiting for one. With --nodes N an autoscaler is "
                "asked for them."
            )

    def close(self) -> None:
        """Stop the workers; whatever they were doing is done again next time. A training first writes a checkpoint."""
        if not self._begun:
            return
        training = [node for node in self.nodes if any(entry.request.exclusive for entry in node.running.values())]
        self._cluster.tell({"do": "end", "gently": [node.name for node in training]})
        with suppress(UserError):  # gone is closed too
            while self._cluster.hear()["say"] != "ended":
                pass
