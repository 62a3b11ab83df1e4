"""Run tasks one after another in this process, for a debugger: ``headrace run --workers 0``."""

from __future__ import annotations

from collections import deque
from pathlib import Path

from headrace.flow.executors import Request
from headrace.flow.markers import Marker
from headrace.flow.step import Step, execute, topological
from headrace.flow.task import TaskContext


class InlineExecutor:
    """Runs each task when it is waited for; an exception keeps its traceback, and a crash ends the run.

    Args:
        run: the run folder.
        targets: the steps whose tasks may be submitted; their inputs are added.
        memory: bytes of data that a task may hold.
        careful: whether tasks process one document at a time, as after a worker's death.
    """

    def __init__(self, run: Path, targets: list[Step], memory: int, careful: bool = False) -> None:
        self._run, self._memory, self._careful = run, memory, careful
        self._steps = {step.name: step for step in topological(targets)}
        self._waiting: deque[Request] = deque()

    def submit(self, requests: list[Request]) -> None:
        """Submit the tasks of a phase."""
        self._waiting += requests

    def wait(self) -> tuple[Request, Marker]:
        """Run the next task."""
        request = self._waiting.popleft()
        return request, self.execute(request)

    def execute(self, request: Request) -> Marker:
        """Run a task; returns its marker."""
        step, memory = self._steps[request.artifact], max(self._memory, request.least)
        return execute(step, TaskContext(self._run, step, request.phase, request.task, memory, careful=self._careful))

    @property
    def idle(self) -> bool:
        """Whether no task is waiting."""
        return not self._waiting

    def close(self) -> None:
        """Nothing to release."""
