"""Who does the tasks. An executor takes requests and an event log; storage is the only state it shares with workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from headrace.flow.events import EventLog


@dataclass(frozen=True)
class Request:
    """One task to be done: names and numbers only.

    Attributes:
        artifact: the step's name.
        phase: the phase's name.
        task: the task's number.
        least: the least bytes of memory it needs.
        exclusive: it uses all cores itself.
    """

    artifact: str
    phase: str
    task: int
    least: int = 0
    exclusive: bool = False


class Executor(Protocol):
    """Does a phase's tasks, each at least once, in any order."""

    def map(self, requests: list[Request], log: EventLog) -> None:
        """Do all requests or raise: UserError for what a user can mend, TaskFailed for a defect."""

    def close(self) -> None:
        """Let the workers go."""


class TaskFailed(RuntimeError):  # noqa: N818 - it tells a state, as in concurrent.futures
    """A task raised something unexpected; the traceback is in the log."""
