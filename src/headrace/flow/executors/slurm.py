"""Run tasks on the nodes of a Slurm cluster: agents in a job array, which share only the run folder with the
coordinator.

::

    RUN/queue/coordinator.json        the coordinator's session and its counter
    RUN/queue/SESSION/JOB-INDEX.in    the tasks of an agent, written by the coordinator
    RUN/queue/SESSION/JOB-INDEX.out   what its workers say and its signs of life, written by the agent

A task is given to one node, so nothing is to be claimed; a node whose counter stands still, or which Slurm no longer
knows, is lost, and its tasks are done again elsewhere. If such a node comes back, what it writes are the same bytes
under the same names. Nodes are submitted again while there are tasks: time limits and preemption end none of them.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from headrace.errors import UserError
from headrace.flow.events import EventLog
from headrace.flow.executors import Request
from headrace.flow.executors.agent import LEAST_PAUSE, MOST_PAUSE, PULSE, QUEUE
from headrace.flow.executors.job_array import JobArray, agent_command
from headrace.flow.executors.mailbox import BEAT_SECONDS, PATIENCE, Inbox, Outbox, Pulse, Watch, mailboxes
from headrace.flow.executors.pool import Node, Pool

LOOK_SECONDS = 10.0  # between two questions to Slurm, whose controller serves the whole cluster
DISCOVER_SECONDS = 0.5
PAUSE_A_NODE = 0.002  # seconds between looks at mailboxes, for each node: at most 500 files a second are opened
FAREWELL = 5.0  # seconds for agents to end by themselves; those that do not are cancelled
SILENT = 3  # agents that end without a word, after which something is wrong with all of them
BASE = 400 << 20  # bytes that a worker, and the server that they are forked from, hold besides data
DATA = (
    1 << 30
)  # bytes of data for a worker if nothing is said; reading documents takes 112 MiB, sorts take what they get


@dataclass(eq=False)
class _Agent:
    name: str
    node: Node
    inbox: Inbox
    outbox: Outbox
    watch: Watch
    heard: int = 0


class SlurmCluster:
    """The agents of a run, for as long as it lasts; a context manager.

    Args:
        run: the run folder, which all nodes see under the same path.
        nodes: how many agents at most.
        workers: how many tasks an agent runs at once, each on a core; None for as many as a node has cores.
        memory: bytes of data that they may hold together; None for ``DATA`` a worker, of whole nodes half.
        options: further options of sbatch.
        patience: seconds after which a counter that stands still is of a dead machine.
    """

    def __init__(
        self,
        run: Path,
        nodes: int,
        workers: int | None,
        memory: int | None,
        options: Sequence[str] = (),
        patience: float = PATIENCE,
    ) -> None:
        self.run, self.nodes, self.workers, self.patience = run, nodes, workers, patience
        self.folder = run / QUEUE
        if workers is None:
            asked = ["--exclusive", "--mem=0"]
        else:
            memory = memory or workers * DATA
            asked = [f"--cpus-per-task={workers}", f"--mem={-(-(memory + (workers + 1) * BASE) >> 20)}M"]
        self.jobs = JobArray(run, agent_command(run), [*asked, *options])
        told = {"session": "", "ended": False, "patience": patience, "workers": workers, "memory": memory}
        self._pulse = Pulse(self.folder / PULSE, told)
        self._submitted: set[str] = set()  # agents that have not said anything yet
        self._known: set[str] = set()  # those that have
        self._silent = 0
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)

    def say(self, **changed: Any) -> None:
        """Change what the pulse says."""
        with self._lock:
            self._pulse.beat(**changed)

    def _live(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            with suppress(UserError, OSError):  # a full disk may have room again at the next beat
                self.say()

    def replenish(self, alive: set[str], known: set[str], wanted: int) -> None:
        """Submit agents until there are as many as wanted.

        Args:
            alive: those that Slurm knows, waiting or running.
            known: those that have said something in this session.
            wanted: how many there should be.

        Raises:
            UserError: Slurm does not take them, or they end without a word.
        """
        if not known <= self._known:
            self._known |= known
            self._silent = 0
        self._silent += len(self._submitted - alive - self._known)
        self._submitted &= alive - self._known
        if self._silent >= SILENT:
            if alive:
                return  # some of the nodes are good, and do the work
            raise UserError(
                f"{self._silent} jobs ended before they said anything.",
                str(self.run / "logs"),
                "Read the newest slurm-*.log there; without one, nodes do not see the run folder under this path: "
                "choose an --out on the shared file system.",
            )
        if len(alive) < wanted:
            self._submitted |= self.jobs.submit(wanted - len(alive))

    def begin(self) -> None:
        """Be there for agents, unless it is done. A run that has nothing to do needs no cluster.

        Raises:
            UserError: Slurm does not answer.
        """
        if self._thread.is_alive():
            return
        self.jobs.check()
        for left in [path for path in self.folder.glob("*") if path.is_dir()]:
            shutil.rmtree(left, ignore_errors=True)  # sessions of coordinators that were killed
        (self.run / "logs").mkdir(parents=True, exist_ok=True)
        self.say()
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._thread.is_alive():
            return
        self._stop.set()
        self._thread.join()
        self.say(session="", ended=True)
        self.jobs.cancel(waiting=True)
        deadline = time.monotonic() + FAREWELL
        while self.jobs.elements() and time.monotonic() < deadline:
            time.sleep(MOST_PAUSE)
        self.jobs.cancel()


class SlurmExecutor(Pool):
    """Runs tasks on the agents of a cluster: one session, with one graph.

    Args:
        cluster: the agents.
        graph: ``module:function`` that rebuilds the graph from the run folder.
        log: receives all events.
    """

    def __init__(self, cluster: SlurmCluster, graph: str, log: EventLog) -> None:
        super().__init__(log)
        self._cluster, self._agents = cluster, dict[str, _Agent]()
        self._session = f"{time.time_ns():x}"
        self._folder = cluster.folder / self._session
        self._known: set[str] = set()  # agents that have joined this session, now gone or not
        self._alive = 0
        self._looked = self._discovered = -LOOK_SECONDS
        self._pause = LEAST_PAUSE
        self._graph = graph

    def submit(self, requests: list[Request]) -> None:
        """Submit the tasks of a phase."""
        if not self._folder.exists():
            self._cluster.begin()
            self._folder.mkdir(parents=True)
            self._cluster.say(session=self._session, graph=self._graph)
        super().submit(requests)
        if self._alive < self._wanted:
            self._looked = -LOOK_SECONDS

    def ask(self, node: Node, request: dict[str, Any]) -> None:
        """Have a worker of a node run a task."""
        agent = next(agent for agent in self._agents.values() if agent.node is node)
        agent.outbox.put({"do": "ask", **request})

    def listen(self) -> None:
        """Wait until an agent says something, joins or is lost."""
        while not (self._take() | self._discover() | self._look()):
            time.sleep(self._pause)
            self._pause = min(2 * self._pause, max(MOST_PAUSE, PAUSE_A_NODE * len(self._agents)))
        self._pause = LEAST_PAUSE

    def close(self) -> None:
        """End the session. Agents stay for the next one; one that is training writes a checkpoint first."""
        training = [
            agent
            for agent in self._agents.values()
            if any(one.request.exclusive for one in agent.node.running.values())
        ]
        for agent in self._agents.values():
            agent.outbox.put({"do": "end"})
        deadline = time.monotonic() + self._cluster.patience
        while training and time.monotonic() < deadline:
            training = [agent for agent in training if not any(m["message"] == "gone" for m in agent.inbox.take())]
            time.sleep(LEAST_PAUSE)
        if self._folder.exists():
            self._cluster.say(session="")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _take(self) -> bool:
        """Handle what agents have said; whether it was more than signs of life."""
        news = False
        for agent in list(self._agents.values()):
            for message in agent.inbox.take():
                agent.heard += 1
                if message["message"] == "gone":
                    self._lose(agent, "it left")
                    news = True
                elif message["message"] == "leaving":
                    agent.node.leaving = True
                elif message["message"] != "life":
                    self.heard(agent.node, message)
                    news = True
            if agent.name in self._agents and agent.watch.stopped(agent.heard):
                self._cluster.jobs.cancel(agent.name)
                self._lose(agent, f"its counter has stood still for {self._cluster.patience:.0f} s")
                news = True
        return news

    def _discover(self) -> bool:
        """Agents that have joined."""
        if time.monotonic() < self._discovered + DISCOVER_SECONDS:
            return False
        self._discovered = time.monotonic()
        joined = False
        for name in sorted(mailboxes(self._folder) - self._known):
            inbox = Inbox(self._folder / f"{name}.out")
            said = inbox.take()
            if not said:
                continue
            cluster, first = self._cluster, said[0]
            node = Node(first["node"], first["workers"], first["memory"], first["gpus"])
            outbox = Outbox(self._folder / f"{name}.in")
            self._agents[name] = _Agent(name, node, inbox, outbox, Watch(cluster.patience))
            self._known.add(name)
            self.joined(node)
            joined = True
        return joined

    def _lose(self, agent: _Agent, reason: str) -> None:
        del self._agents[agent.name]
        agent.outbox.put({"do": "end"})  # should it come back
        self.lost(agent.node, reason)

    def _look(self) -> bool:
        """Ask Slurm which agents there are: lose those that have ended, submit what is missing."""
        if time.monotonic() < self._looked + LOOK_SECONDS:
            return False
        self._looked = time.monotonic()
        elements = self._cluster.jobs.elements()
        if elements is None:
            return False
        ended = [agent for name, agent in self._agents.items() if name not in elements]
        for agent in ended:
            self._lose(agent, "Slurm has ended its job")
        if not self._agents and (why := {one.reason for one in elements.values() if one.state == "PENDING"} - {"None"}):
            self.log.notice(f"Slurm has no node for the run yet: {', '.join(sorted(why))}.")
        self._discover()  # those that said something before they ended
        self._alive = len(elements)
        try:
            self._cluster.replenish(set(elements), self._known, self._wanted)
        except UserError as error:
            self._fail(error)
            return True
        return bool(ended)

    @property
    def _wanted(self) -> int:
        """How many nodes the tasks that wait and run are worth."""
        tasks = len(self._waiting) + sum(len(node.running) for node in self.nodes)
        workers = self._cluster.workers or max((node.workers for node in self.nodes), default=1)
        return min(self._cluster.nodes, -(-tasks // workers))
