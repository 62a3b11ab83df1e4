"""The process that is connected to a Ray cluster: it starts an agent on each node and passes messages on.

It is a process of its own because Ray ends the process that is connected when the head node is lost, prints what
happens in the cluster to standard output, and takes SIGTERM for itself.

Commands are JSON lines on standard input: ``{"do": "begin", "graph"}``, ``{"do": "ask", "node", "request"}``, ``{"do":
"end", "gently"}`` (nodes that train, and write a checkpoint first). Answers are JSON lines: ``{"say": "joined", "node",
"workers", "memory", "gpus"}``, ``{"say": "lost", "node", "reason"}``, ``{"say": "heard", "node", "messages"}``,
``{"say": "unfit", "what", "where", "fix", "others"}`` (a node that cannot be used, and how many others there are),
``{"say": "waiting"}`` (no node has a free processor), ``{"say": "ended"}``, and ``{"say": "refused", "what", "where",
"fix"}``, the last.

Ray only places the agents. It retries nothing and carries neither text nor records: these are in files.
"""

from __future__ import annotations

import os
import queue
import socket
import sys
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import ray
from ray._private.state import available_resources_per_node  # where ray.util.tpu has it from: there is no public one
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from headrace.errors import UserError
from headrace.flow.executors.ray_agent import RayAgent, same_everywhere
from headrace.flow.mirror import shown
from headrace.flow.worker import die_with_parent

LOOK_SECONDS = 1.0  # between looks at which nodes there are
START_SECONDS = 120  # for an agent to answer: a node imports headrace from a slow disk in 20
TRIES = 3  # to start an agent on a node before the user is told
REST_SECONDS = 5  # until a node whose agent was lost or could not be used is tried again
WAITING_SECONDS = 20  # without any node until the user is told
KNOCK_SECONDS = 10  # for a head node to accept a connection
END_SECONDS = 5  # for a node to end its workers, after which they are killed with their agent
OBJECTS = 80 << 20  # bytes for Ray's objects on a machine of our own; messages are far smaller, and it takes no less


@dataclass(eq=False)
class _Agent:
    actor: Any
    node: str
    name: str
    workers: int
    gpus: int
    share: float
    began: float
    joined: bool = False


class Driver:
    """The connection of one run.

    Args:
        run: the run folder.
        nodes: how many at most, which an autoscaler is asked for; None for those that are there.
        workers: how many on each node at most; None for one a free processor.
        memory: bytes for data on each node; None for a share of what is free there.
        out: where answers go.
    """

    def __init__(self, run: str, nodes: int | None, workers: int | None, memory: int | None, out: BinaryIO) -> None:
        self._nodes, self._workers, self._memory, self._out = nodes, workers, memory, out
        self._place = shown(Path(run))  # of a mirror the URL: each node has its own
        self._events: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._agents: dict[str, _Agent] = {}  # by node
        self._resting: dict[str, float] = {}
        self._failed: Counter[str] = Counter()
        self._graph: str | None = None
        self._looked = self._useful = 0.0
        self._token = Path(run, "logs", f"seen-{uuid.uuid4().hex}") if self._place == run else None

    def serve(self, commands: BinaryIO) -> None:
        """Serve until the coordinator is gone."""

        def listen() -> None:
            for line in commands:
                self._events.put(("command", orjson.loads(line)))
            self._events.put(("gone",))

        threading.Thread(target=listen, daemon=True).start()
        while True:
            try:
                kind, *about = self._events.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                kind, about = "look", []
            if kind == "gone":
                return
            if kind != "look":
                getattr(self, f"_{kind}")(*about)
            if self._graph is not None and time.monotonic() - self._looked > LOOK_SECONDS:
                self._look()

    def _say(self, say: str, **about: Any) -> None:
        self._out.write(orjson.dumps({"say": say, **about}, option=orjson.OPT_APPEND_NEWLINE))
        self._out.flush()

    # Commands.

    def _command(self, command: dict[str, Any]) -> None:
        if command["do"] == "begin":
            self._graph, self._useful = command["graph"], time.monotonic()
            if self._token is not None:
                self._token.parent.mkdir(exist_ok=True)
                self._token.touch()
            if self._nodes is not None:
                _request(self._nodes, self._workers or 1)
        elif command["do"] == "ask":
            for agent in self._agents.values():
                if agent.name == command["node"]:
                    agent.actor.ask.remote(command["request"])
        else:
            self._end(command["gently"])

    def _end(self, gently: list[str]) -> None:
        closing = {agent.name: agent.actor.close.remote() for agent in self._agents.values() if agent.joined}
        for name, ref in closing.items():
            with suppress(RayError):
                ray.get(ref, timeout=None if name in gently else END_SECONDS)
        for agent in self._agents.values():
            ray.kill(agent.actor)
        self._agents.clear()
        self._resting.clear()
        self._graph = None
        if self._token is not None:
            self._token.unlink(missing_ok=True)
        if self._nodes is not None:
            _request(0, 0)
        self._say("ended")

    # Nodes.

    def _look(self) -> None:
        """Start agents on nodes that have none."""
        self._looked = now = time.monotonic()
        for agent in list(self._agents.values()):
            if not agent.joined and now - agent.began > START_SECONDS:
                self._unfit(agent, f"Its agent has not started within {START_SECONDS} s.", "See Ray's logs there.")
        free = available_resources_per_node()
        left = sys.maxsize if self._nodes is None else self._nodes - len(self._agents)
        for node in ray.nodes():
            place, about = node["NodeID"], free.get(node["NodeID"], {})
            workers = min(int(about.get("CPU", 0)), self._workers or sys.maxsize)
            if place in self._agents or not node["Alive"] or now < self._resting.get(place, 0.0):
                continue
            if workers < 1 or left < 1:
                continue
            left -= 1
            self._start(node, workers, int(about.get("GPU", 0)))
        if self._agents:
            self._useful = now
        elif now - self._useful > WAITING_SECONDS:
            self._say("waiting")
            self._useful = now

    def _start(self, node: dict[str, Any], workers: int, gpus: int) -> None:
        name = f"{node['NodeManagerHostname']}-{node['NodeID'][:6]}"
        share = workers / max(workers, node["Resources"].get("CPU", workers))
        kind: Any = ray.remote(RayAgent)
        actor = kind.options(
            num_cpus=workers,
            num_gpus=gpus,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=4,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(self._place, self._graph, workers, name, os.getcwd())
        agent = _Agent(actor, node["NodeID"], name, workers, gpus, share, time.monotonic())
        self._agents[agent.node] = agent
        self._when("looked_at", agent, actor.look.remote(None if self._token is None else str(self._token), share))

    def _when(self, kind: str, agent: _Agent, ref: Any) -> None:
        ref.future().add_done_callback(lambda done: self._events.put((kind, agent, done)))

    def _looked_at(self, agent: _Agent, done: Future[Any]) -> None:
        """An agent has started, or not."""
        if self._agents.get(agent.node) is not agent:
            return
        if (error := done.exception()) is not None:
            self._failed[agent.node] += 1
            if isinstance(error, RayError) and "creation task" not in str(error) and self._failed[agent.node] < TRIES:
                self._forget(agent)  # the node is gone, or somebody else was faster
            else:
                self._unfit(agent, f"Its agent does not start: {_last(error)}", "Install the same headrace there.")
            return
        seen, here = done.result(), same_everywhere()
        different = [
            f"{name} {seen['versions'].get(name)} instead of {here.get(name)}"
            for name in sorted(here.keys() | seen["versions"].keys())
            if here.get(name) != seen["versions"].get(name)
        ]
        if different:
            what = f"It has {', '.join(different)}."
            self._unfit(agent, what, "Bytes could differ: install the same versions on all nodes.")
        elif seen["trouble"] is not None:
            self._unfit(agent, *seen["trouble"])
        else:
            agent.joined = True
            self._failed.pop(agent.node, None)
            memory = self._memory or seen["memory"]
            self._say("joined", node=agent.name, workers=agent.workers, memory=memory, gpus=agent.gpus)
            self._when("messages", agent, agent.actor.hear.remote())

    def _messages(self, agent: _Agent, done: Future[Any]) -> None:
        """An agent's workers have said something, or the agent is lost."""
        if self._agents.get(agent.node) is not agent:
            return
        error = done.exception()
        if error is None:
            messages = done.result()
            broken = [message["what"] for message in messages if message["message"] == "broken"]
            self._say("heard", node=agent.name, messages=[one for one in messages if one["message"] != "broken"])
            if not broken:
                self._when("messages", agent, agent.actor.hear.remote())
                return
        self._forget(agent)
        self._say("lost", node=agent.name, reason=_last(error) if error is not None else broken[0])

    def _forget(self, agent: _Agent) -> None:
        del self._agents[agent.node]
        self._resting[agent.node] = time.monotonic() + REST_SECONDS
        ray.kill(agent.actor)  # if Ray only cannot reach it, it must not go on

    def _unfit(self, agent: _Agent, what: str, fix: str) -> None:
        self._forget(agent)
        self._say("unfit", what=what, where=f"node {agent.name}", fix=fix, others=len(self._agents))


def _last(error: BaseException) -> str:
    """What an error of Ray says in the end, without advice; it begins with the same words for all causes."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).partition(" Some common causes")[0][:300]


def _request(nodes: int, cpus: int) -> None:
    """Ask the autoscaler, if there is one, for so many nodes with so many processors each."""
    from ray.autoscaler.sdk import request_resources

    with suppress(RayError, RuntimeError, ValueError):
        request_resources(bundles=[{"CPU": cpus}] * nodes)


def connect(address: str | None, workers: int | None) -> None:
    """Join a cluster, or start Ray on this machine if no address is given, there is none in ``RAY_ADDRESS``, and none
    runs here.

    Raises:
        UserError: there is no cluster at the address.
    """
    address = address or os.environ.get("RAY_ADDRESS") or None
    quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    try:
        if address not in (None, "local", "auto"):
            _knock(address)
        if address != "local":
            ray.init(address=address or "auto", **quiet)
            return
    except (OSError, RuntimeError, ValueError) as error:
        if address is not None:
            raise UserError(
                f"There is no Ray cluster that can be joined: {_last(error)}",
                address,
                "See that `ray status --address ADDRESS` answers here, and that all machines have the same Python and "
                "the same Ray.",
            ) from None
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        address="local",
        num_cpus=workers,
        include_dashboard=False,
        object_store_memory=OBJECTS,
        _node_ip_address="127.0.0.1",
        **quiet,
    )


def _knock(address: str) -> None:
    """Open a connection to a head node. Ray itself would try for minutes.

    Raises:
        OSError, ValueError: nobody answers.
    """
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()


def main() -> None:
    """``python -m headrace.flow.executors.ray_driver RUN PARENT OPTIONS``, the last JSON: ``address``, ``nodes``,
    ``workers``, ``memory``."""
    run, parent, told = sys.argv[1:]
    die_with_parent(int(parent))
    options = orjson.loads(told)
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # Ray prints there
    driver = Driver(run, options["nodes"], options["workers"], options["memory"], out)
    try:
        connect(options["address"], options["workers"])
    except UserError as error:
        driver._say("refused", what=error.what, where=error.where, fix=error.fix)
        return
    driver.serve(sys.stdin.buffer)
    ray.shutdown()


if __name__ == "__main__":
    main()
