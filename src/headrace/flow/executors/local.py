"""Worker processes on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from headrace.flow.events import EventLog
from headrace.flow.executors.pool import Node, Pool
from headrace.flow.executors.workers import Workers


class LocalExecutor(Pool):
    """Runs tasks in ``workers`` processes under one memory budget.

    Args:
        run: the run folder.
        graph: ``module:function`` that rebuilds the graph from the run folder.
        workers: how many processes at most.
        memory: bytes of data that all of them may hold together.
        log: receives all events.
    """

    def __init__(self, run: Path, graph: str, workers: int, memory: int, log: EventLog) -> None:
        super().__init__(log)
        self._workers = Workers(run, graph, workers, str(os.getpid()))
        self._here = Node("", workers, memory)
        self.joined(self._here)

    def ask(self, node: Node, request: dict[str, Any]) -> None:
        """Have a worker run a task."""
        self._workers.ask(request)

    def listen(self) -> None:
        """Wait until workers say something."""
        for message in self._workers.hear():
            self.heard(self._here, message)

    def close(self) -> None:
        """Kill all workers; whatever they were doing is done again next time. A training first writes a checkpoint."""
        self._workers.close()
