"""What runs on each node of a Ray cluster: an actor with the node's worker processes.

One actor a node rather than one a worker: workers are forked from one process, share its memory and its kernels, and
are watched through pipes, as on a single machine; Ray sees one message for many. A thread of the actor's own holds
them, because the system kills forked processes with the thread that began them.
"""

from __future__ import annotations

import os
import queue
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import headrace
from headrace.environment import data_memory, versions
from headrace.errors import UserError
from headrace.flow.executors.workers import Message, Workers
from headrace.flow.mirror import working_folder

UNSEEN = (
    "It does not see the run folder.",
    "Choose an --out on a file system that all nodes mount at the same path, or a URL of an object store.",
)


def same_everywhere() -> dict[str, str]:
    """The versions that must agree on all machines, or bytes could differ."""
    return {"headrace": headrace.__version__, **versions()}


class RayAgent:
    """The workers of one node. Its methods are called from several threads.

    Args:
        place: the run folder or its URL.
        graph: ``module:function`` that rebuilds the graph from the run folder.
        workers: how many tasks run at once.
        name: the node's name.
        home: the coordinator's working directory, from which a recipe's paths may count.
    """

    def __init__(self, place: str, graph: str, workers: int, name: str, home: str) -> None:
        self._place, self._graph, self._most, self._name = place, graph, workers, name
        self._asked: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._said: queue.SimpleQueue[list[Message]] = queue.SimpleQueue()
        self._ears, self._bell = os.pipe()
        self._thread = threading.Thread(target=self._work, daemon=True)
        with suppress(OSError):
            os.chdir(home)

    def look(self, token: str | None, share: float) -> dict[str, Any]:
        """What the coordinator needs to know before it gives work.

        Args:
            token: a file that the coordinator has just written in the run folder; None for a run at a URL.
            share: the share of the node's processors that the workers have.

        Returns:
            ``versions``; ``memory``, in bytes, for data; ``trouble``, why the run cannot be reached from here, as what
            and how to mend it, or None.
        """
        trouble = None
        if token is not None:
            with suppress(OSError):
                os.listdir(Path(token).parent)  # network file systems remember for seconds that there was no such file
            trouble = None if os.path.exists(token) else UNSEEN
        try:
            self._run = working_folder(self._place)
        except UserError as error:
            trouble = error.what, error.fix
        if trouble is None:
            self._thread.start()
        return {"versions": same_everywhere(), "memory": int(data_memory() * share), "trouble": trouble}

    def ask(self, request: Message) -> None:
        """Have a worker run a task; see :meth:`Workers.ask`."""
        self._tell(request)

    def hear(self) -> list[Message]:
        """Wait until workers say something; see :meth:`Workers.hear`. ``broken`` says that there can be no workers."""
        said = self._said.get()
        while not self._said.empty():
            said += self._said.get()
        return said

    def close(self) -> None:
        """Stop the workers, after a training has written a checkpoint."""
        self._tell(None)
        self._thread.join()

    def _tell(self, request: Message | None) -> None:
        self._asked.put(request)
        os.write(self._bell, b"!")

    def _work(self) -> None:
        workers = Workers(self._run, self._graph, self._most, f"{self._name}-{os.getpid()}")
        workers.watch(self._ears)
        os.set_blocking(self._ears, False)
        try:
            while True:
                if said := workers.hear():
                    self._said.put(said)
                with suppress(BlockingIOError):
                    os.read(self._ears, 1 << 16)
                while not self._asked.empty():
                    request = self._asked.get()
                    if request is None:
                        return
                    workers.ask(request)
        except Exception as error:
            self._said.put([{"message": "broken", "what": f"{type(error).__name__}: {error}"}])
        finally:
            workers.close()
