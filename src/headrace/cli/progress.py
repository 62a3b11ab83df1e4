"""Progress of a run: live bars on a terminal, plain lines in a log. Both are made of the run's events."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from headrace.cli.terminal import say
from headrace.report.numbers import duration, size
from headrace.visible import visible

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

# In a log, a phase that takes long is heard of this often (seconds).
QUIET = 15.0


@dataclass
class Phase:
    """How far the phase that is now being worked on is."""

    artifact: str
    name: str
    tasks: int
    done: int = 0
    rows: int = 0
    bytes: int = 0
    began: float = field(default_factory=time.monotonic)

    def pace(self) -> str:
        """Rows or bytes a second since the phase began, and the time that is left at this rate of tasks."""
        seconds = time.monotonic() - self.began
        if seconds < 1:
            return ""
        rate = f"{size(self.bytes / seconds)}/s" if self.bytes else ""
        if self.rows and not self.bytes:
            rate = f"{self.rows:,} rows, {self.rows / seconds:,.0f}/s"
        left = f"{duration(seconds / self.done * (self.tasks - self.done))} left" if 0 < self.done < self.tasks else ""
        return ", ".join(part for part in (rate, left) if part)


def notice(event: dict[str, Any]) -> str | None:
    """The line that stays of an event, for those that leave one."""
    kind, artifact = event["event"], event.get("artifact", "")
    if kind == "artifact" and event["state"] == "published":
        what = f"{event['rows']:,} rows, {size(event['bytes'])}" if event["rows"] else size(event["bytes"])
        return f"{artifact:<28} {what}, {duration(event['seconds'])}"
    if kind == "artifact" and event["state"] == "present":
        return f"{artifact:<28} there already"
    if kind == "phase" and event.get("taken"):
        return f"{artifact:<28} {event['phase']}: {event['taken']} of {event['tasks']} tasks taken over"
    if kind == "notice":
        return str(event["text"])
    if kind == "died":
        at = f" at {event['at']}" if event.get("at") else ""
        return f"a worker died ({event['reason']}) in {artifact} {event['phase']}{at}; its task is done again"
    return None


class Notices:
    """The lines that stay. That kernels are compiled is said once: it happens once after an installation."""

    def __init__(self) -> None:
        self._compiling = False

    def __call__(self, event: dict[str, Any]) -> str | None:
        """The line that an event leaves, if any."""
        if event["event"] == "compiling" and not self._compiling:
            self._compiling = True
            return "compiling kernels, once for this version of headrace; later runs find them in the cache"
        return notice(event)


class Lines:
    """Plain lines, for logs and pipes."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream or sys.stdout
        self._clock = clock
        self._notices = Notices()
        self._phase: Phase | None = None
        self._last = clock()

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.flush()

    def __call__(self, event: dict[str, Any]) -> None:
        """Take in an event of the run."""
        line = self._notices(event)
        self._phase = follow(self._phase, event)
        if line is None and self._phase is not None and self._clock() - self._last > QUIET:
            phase = self._phase
            pace = phase.pace()
            line = f"{phase.artifact:<28} {phase.name} {phase.done}/{phase.tasks}{f', {pace}' if pace else ''}"
        if line is not None:
            self._last = self._clock()
            say(line, stream=self._stream)


class Bars:
    """A live bar for the phase at work, with a line above it for every artifact that is done."""

    def __init__(self, stream: TextIO | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._notices = Notices()
        self._phase: Phase | None = None
        self._bar: TaskID | None = None
        self._progress: Progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[pace]}"),
            console=Console(file=stream or sys.stdout),
            transient=True,
        )

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        """Take in an event of the run."""
        line = self._notices(event)
        if line is not None:
            self._progress.console.print(visible(line), markup=False, highlight=False)
        before, self._phase = self._phase, follow(self._phase, event)
        if self._phase is not before:
            if self._bar is not None:
                self._progress.remove_task(self._bar)
            self._bar = None
            if self._phase is not None:
                title = f"{self._phase.artifact} {self._phase.name}"
                self._bar = self._progress.add_task(title, total=self._phase.tasks, completed=self._phase.done, pace="")
        if self._bar is not None and self._phase is not None:
            self._progress.update(self._bar, completed=self._phase.done, pace=self._phase.pace())


def follow(phase: Phase | None, event: dict[str, Any]) -> Phase | None:
    """The phase at work after an event: a new one, the same with more done, or none once its artifact is published."""
    kind = event["event"]
    if kind == "phase":
        return Phase(event["artifact"], event["phase"], event["tasks"], event["done"])
    if phase is None or kind in ("finished", "stopped", "failed"):
        return None
    if kind == "artifact" and event["state"] == "published":
        return None
    if kind == "task":
        phase.done += 1
    if kind == "progress":
        phase.rows += event["rows"]
        phase.bytes += event["bytes"]
    return phase


def listener(stream: TextIO | None = None) -> Lines | Bars:
    """Bars when the stream is a terminal, else lines."""
    stream = stream or sys.stdout
    return Bars(stream) if stream.isatty() else Lines(stream)
