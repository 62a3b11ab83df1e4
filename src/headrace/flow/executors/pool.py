"""What every executor with workers does: the queue of tasks, their memory, deaths, and messages as events.

A *node* is a machine with workers; here there is one, on a cluster there are many, which come and go. How a task gets
to a node, and messages come back, is the subclass's part.

Memory is assigned with the tasks. Each gets an equal share of its node's budget, a larger share if its phase has fewer
tasks than there are workers, or the least it needs; the tasks of a node never exceed its budget together, unless a
single task needs more than all of it. Tasks start in the order they were submitted. One that must wait for memory, or
for others to end because it is exclusive, holds a node: nothing else starts there before it, so none starves.

A task that killed its worker is retried once, in a new worker and one document at a time; if that dies too, the run
stops and names the document. A node that is lost is not the task's fault, unless it happens again and again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from headrace.errors import UserError
from headrace.flow.artifact import DamagedArtifact
from headrace.flow.events import EventLog
from headrace.flow.executors import Request, TaskFailed
from headrace.flow.markers import Marker

# A task that takes its machine down with it would otherwise do so to one after another. Spot machines are lost to other
# causes: at one loss an hour a node, a task of 10 minutes meets five in a row once in 8,000 tasks.
LOSSES = 5


@dataclass(eq=False)
class Entry:
    """A task that waits or runs.

    Attributes:
        request: the task.
        together: how many were submitted with it.
        memory: the bytes it was given.
        too_little: a share of memory that did not suffice; the task now needs a node for itself.
        deaths: how often its worker died.
        losses: how often its node was lost.
    """

    request: Request
    together: int
    memory: int = 0
    too_little: int = 0
    deaths: int = 0
    losses: int = 0

    @property
    def alone(self) -> bool:
        """Whether nothing else may run on its node."""
        return self.request.exclusive or self.too_little > 0


@dataclass(eq=False)
class Node:
    """A machine with workers.

    Attributes:
        name: its name; empty for the coordinator's own machine.
        workers: how many tasks may run there at once.
        memory: bytes of data that they may hold together.
        gpus: the GPUs they may use.
        leaving: it takes no more tasks.
        running: what runs there, by artifact, phase and task.
    """

    name: str
    workers: int
    memory: int
    gpus: int = 0
    leaving: bool = False
    running: dict[tuple[str, str, int], Entry] = field(default_factory=dict)

    @property
    def free(self) -> int:
        """Bytes of memory that nothing has been given."""
        return self.memory - sum(entry.memory for entry in self.running.values())

    @property
    def open(self) -> bool:
        """Whether another task may start there."""
        busy = len(self.running) >= self.workers or any(one.request.exclusive for one in self.running.values())
        return not busy and not self.leaving

    def share(self, entry: Entry, nodes: int) -> int | None:
        """Bytes for a task if it started here now; None if it has to wait for others to end.

        Args:
            entry: the task.
            nodes: the number of nodes among which those submitted with it are divided.
        """
        request = entry.request
        if self.running and entry.alone:
            return None
        wanted = self.memory
        if not entry.too_little:
            wanted //= max(1, min(self.workers, -(-entry.together // nodes)))
            wanted = min(wanted, request.most or wanted)
        share = min(wanted, self.memory // self.workers) if request.most is None else wanted
        if self.running and self.free < max(request.least, share):
            return None
        return min(max(wanted, request.least), self.free)


class Pool(ABC):
    """Hands out tasks to the workers of nodes.

    Args:
        log: receives all events.

    Attributes:
        nodes: those that are there now.
    """

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.nodes: list[Node] = []
        # Those that may be open, so that a task on a thousand full nodes does not look at all of them.
        self._room: dict[Node, None] = {}
        self._waiting: deque[Entry] = deque()
        self._done: deque[tuple[Request, Marker]] = deque()
        self._error: Exception | None = None

    # The subclass's part.

    @abstractmethod
    def ask(self, node: Node, request: dict[str, Any]) -> None:
        """Have a worker of a node run a task.

        Args:
            node: the node.
            request: ``artifact``, ``phase``, ``task``, ``memory`` (bytes), ``threads``, ``careful``, ``exclusive``, as
                for :meth:`headrace.flow.executors.workers.Workers.ask`.
        """

    @abstractmethod
    def listen(self) -> None:
        """Wait until something is heard, and pass it on to :meth:`heard`, :meth:`joined` or :meth:`lost`."""

    @abstractmethod
    def close(self) -> None:
        """Stop the workers; whatever they were doing is done again next time. A training first writes a checkpoint."""

    # The executor's interface.

    def submit(self, requests: list[Request]) -> None:
        """Submit the tasks of a phase."""
        self._waiting += [Entry(request, len(requests)) for request in requests]
        self._hand_out()

    def wait(self) -> tuple[Request, Marker]:
        """Wait until any task is done; returns it and its marker.

        Raises:
            UserError: a task failed for a reason that the user can fix, or killed its worker twice.
            TaskFailed: a task raised an unexpected error. In both cases the other running tasks have ended, and
                those that are done were returned.
        """
        while not self._done and (self._error is None or any(node.running for node in self.nodes)):
            self.listen()
        if self._done:
            return self._done.popleft()
        assert self._error is not None
        raise self._error

    @property
    def idle(self) -> bool:
        """Whether a worker has nothing to do and no task is waiting."""
        if self._waiting:
            return False
        return any(node.open for node in self.nodes) or not any(node.running for node in self.nodes)

    # Assigning tasks.

    def _hand_out(self) -> None:
        if not self._waiting or self._error is not None:
            return
        # The emptiest first, and then in turn.
        free = deque(sorted((node for node in self._room if node.open), key=lambda node: len(node.running)))
        self._room = dict.fromkeys(free)
        held: list[Entry] = []
        while free and self._waiting:
            entry = self._waiting.popleft()
            node, memory = self._place(entry, free)
            if memory is None:
                held.append(entry)
            else:
                self._start(node, entry, memory)
            if node in free:
                free.remove(node)
                if memory is not None and node.open:
                    free.append(node)
        self._waiting.extendleft(reversed(held))

    def _place(self, entry: Entry, free: deque[Node]) -> tuple[Node, int | None]:
        """The node where a task starts with so much memory; or, with None, the one that it waits for."""
        if entry.alone:
            # A larger node, if there is one; for training the best.
            staying = [node for node in self.nodes if not node.leaving]
            able = [node for node in staying if node.memory > entry.too_little] or staying
            best = max((node.gpus, node.workers) for node in able) if entry.request.exclusive else None
            able = [node for node in able if best in (None, (node.gpus, node.workers))]
            node = min(able, key=lambda node: len(node.running))
            return node, node.share(entry, len(self.nodes))
        for node in free:
            if (memory := node.share(entry, len(self.nodes))) is not None:
                return node, memory
        return max(free, key=lambda node: node.free), None

    def _start(self, node: Node, entry: Entry, memory: int) -> None:
        request, entry.memory = entry.request, memory
        node.running[request.artifact, request.phase, request.task] = entry
        asked = {
            "artifact": request.artifact,
            "phase": request.phase,
            "task": request.task,
            "memory": memory,
            "threads": node.workers if request.exclusive else 1,
            "careful": entry.deaths > 0,
            "exclusive": request.exclusive,
        }
        self.ask(node, asked)
        on = {"node": node.name} if node.name else {}
        self.log.emit("start", artifact=request.artifact, phase=request.phase, task=request.task, **on)

    # What is heard.

    def joined(self, node: Node) -> None:
        """A node is there, and its workers are ready."""
        self.nodes.append(node)
        self._room[node] = None
        if node.name:
            told = {"workers": node.workers, "memory": node.memory, "gpus": node.gpus}
            self.log.emit("node", node=node.name, state="joined", **told)
        self._hand_out()

    def lost(self, node: Node, reason: str) -> None:
        """A node is gone, whatever the reason: what ran there is done again elsewhere."""
        self.nodes.remove(node)
        self._room.pop(node, None)
        self.log.emit("node", node=node.name, state="lost", reason=reason, tasks=len(node.running))
        for entry in reversed(node.running.values()):
            entry.losses += 1
            if entry.losses == LOSSES:
                self._fail(
                    UserError(
                        f"The machines of a task were lost {LOSSES} times, the last one to: {reason}.",
                        _named(entry.request),
                        "See whether it takes them down, such as for lack of memory; the same command goes on.",
                    )
                )
            self._waiting.appendleft(entry)
        node.running.clear()
        self._hand_out()

    def heard(self, node: Node, message: dict[str, Any]) -> None:
        """Handle a message of a node's workers: see :meth:`headrace.flow.executors.workers.Workers.hear`."""
        kind = message.pop("message")
        on: dict[str, Any] = {"node": node.name} if node.name else {}
        if kind == "ready":
            self.log.emit("worker", **message, **on)
            return
        key = message.pop("artifact"), message.pop("phase"), message.pop("task")
        entry = node.running.get(key)
        if entry is None:
            return
        where = {"artifact": key[0], "phase": key[1]}
        if kind in ("progress", "compiling"):
            self.log.emit(kind, **where, **message)
            return
        if kind == "notice":
            self.log.notice(message["text"])
            return
        del node.running[key]
        self._room[node] = None
        if "output" in message:
            on["output"] = message.pop("output")
        if kind == "done":
            self._done.append((entry.request, message.pop("marker")))
            self.log.emit("task", **where, task=key[2], **message, **on)
        elif kind == "died":
            self._bury(entry, message, on)
        elif message.get("more") and entry.memory < max(other.memory for other in self.nodes):
            entry.too_little = entry.memory
            self._waiting.append(entry)
            self.log.emit("waits", **where, task=key[2], **on)
        else:
            self.log.emit("error", **where, task=key[2], message=message["what"], **on)
            self._fail(_error(entry, message))
        self._hand_out()

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error

    def _bury(self, entry: Entry, message: dict[str, Any], on: dict[str, Any]) -> None:
        request, reason, at = entry.request, message["reason"], message["at"]
        where = {"artifact": request.artifact, "phase": request.phase, "task": request.task}
        self.log.emit("died", **where, reason=reason, at=at, **on)
        entry.deaths += 1
        if entry.deaths < 2:
            self._waiting.appendleft(entry)
            return
        self._fail(
            UserError(
                f"A task killed its worker twice: {reason}.",
                _named(request) + (f", at {at}" if at else ""),
                f"Exclude that document, or use fewer --workers if memory ran out; log: {message['log']}",
            )
        )


def _error(entry: Entry, message: dict[str, Any]) -> Exception:
    if message["user"]:
        text = message["what"], message["where"], message["fix"]
        return DamagedArtifact(*text, message["damaged"]) if message["damaged"] else UserError(*text)
    return TaskFailed(f"{message['what']} ({_named(entry.request)}; the traceback is in {message['log']})")


def _named(request: Request) -> str:
    return f"{request.artifact}, phase {request.phase}, task {request.task}"
