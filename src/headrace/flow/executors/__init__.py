"""Executors run tasks. Storage is the only state that an executor shares with its workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from headrace.flow.markers import Marker


@dataclass(frozen=True)
class Request:
    """One task to run: names and numbers only.

    Attributes:
        artifact: the step's name.
        phase: the phase's name.
        task: the task's number.
        least: the bytes of memory it needs at least.
        most: the bytes of memory it can use at most; None if it uses whatever it gets.
        exclusive: it uses all cores itself, so nothing may run at the same time.
    """

    artifact: str
    phase: str
    task: int
    least: int = 0
    most: int | None = None
    exclusive: bool = False


class Executor(Protocol):
    """Runs tasks, each at least once, roughly in the order in which they were submitted."""

    def submit(self, requests: list[Request]) -> None:
        """Submit the tasks of a phase."""

    def wait(self) -> tuple[Request, Marker]:
        """Wait until any task is done; returns it and its marker, which the caller records.

        Raises:
            UserError: a task failed for a reason that the user can fix.
            TaskFailed: a task failed because of a bug. Both are raised once all tasks that are done were returned.
        """

    @property
    def idle(self) -> bool:
        """Whether a worker has nothing to do, so that tasks of another artifact are welcome."""

    def close(self) -> None:
        """Stop the workers."""


class TaskFailed(RuntimeError):  # noqa: N818 - it tells a state, as in concurrent.futures
    """A task raised an unexpected error; the traceback is in the log."""
