"""Who does the tasks. An executor takes requests; storage is the only state it shares with workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Request:
    """One task to be done: names and numbers only.

    Attributes:
        artifact: the step's name.
        phase: the phase's name.
        task: the task's number.
        least: the least bytes of memory it needs.
        most: bytes beyond which more memory is of no use to it; None if it uses whatever it gets.
        exclusive: it uses all cores itself, so nothing may run beside it.
    """

    artifact: str
    phase: str
    task: int
    least: int = 0
    most: int | None = None
    exclusive: bool = False


class Executor(Protocol):
    """Does tasks, each at least once, in about the order in which they were submitted."""

    def submit(self, requests: list[Request]) -> None:
        """Take the tasks of a phase."""

    def wait(self) -> Request:
        """Wait until any task is done.

        Raises:
            UserError: a task met something that a user can mend.
            TaskFailed: a defect.
        """

    @property
    def idle(self) -> bool:
        """Whether a worker has nothing to do, so that the tasks of another artifact are welcome."""

    def close(self) -> None:
        """Let the workers go."""


class TaskFailed(RuntimeError):  # noqa: N818 - it tells a state, as in concurrent.futures
    """A task raised something unexpected; the traceback is in the log."""
