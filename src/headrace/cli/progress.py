"""Progress of a run: live bars on a terminal, plain lines in a log, both from the run's events."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from headrace.cli.curve import COLUMNS, LINES, Curve
from headrace.cli.terminal import say
from headrace.report.numbers import duration, size
from headrace.visible import visible

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

# Seconds between lines about a long phase in a log.
QUIET = 15.0
# The least terminal that a loss curve is drawn on: it must not push the bars off the screen.
WIDE, TALL = COLUMNS + 10, LINES + 8


@dataclass
class Training:
    """How far a stage's training has come.

    Attributes:
        step: steps done, of ``steps``.
        loss: loss of the last step, in nats per token.
        first: steps already done at the first event, at time ``began``.
        curve: the losses so far.
    """

    step: int
    steps: int
    loss: float | None
    first: int
    curve: Curve
    began: float = field(default_factory=time.monotonic)

    def pace(self) -> str:
        """Loss, speed and time left."""
        parts = [] if self.loss is None else [f"loss {self.loss:.2f}"]
        seconds, done = time.monotonic() - self.began, self.step - self.first
        if done and seconds > 0:
            parts.append(f"{done / seconds:.3g} steps/s" if done > seconds else f"{seconds / done:.3g} s/step")
        if done and self.step < self.steps:
            parts.append(f"{duration(seconds / done * (self.steps - self.step))} left")
        return ", ".join(parts)


@dataclass
class Phase:
    """How far the current phase has come."""

    artifact: str
    name: str
    tasks: int
    done: int = 0
    rows: int = 0
    bytes: int = 0
    began: float = field(default_factory=time.monotonic)
    training: Training | None = None

    @property
    def far(self) -> tuple[int, int]:
        """Done and total: steps of training, otherwise tasks."""
        return (self.done, self.tasks) if self.training is None else (self.training.step, self.training.steps)

    def pace(self) -> str:
        """Rows or bytes per second since the phase started, and the time left at the current rate of tasks."""
        if self.training is not None:
            return self.training.pace()
        seconds = time.monotonic() - self.began
        if seconds < 1:
            return ""
        rate = f"{size(self.bytes / seconds)}/s" if self.bytes else ""
        if self.rows and not self.bytes:
            rate = f"{self.rows:,} rows, {self.rows / seconds:,.0f}/s"
        left = f"{duration(seconds / self.done * (self.tasks - self.done))} left" if 0 < self.done < self.tasks else ""
        return ", ".join(part for part in (rate, left) if part)

    def reached(self) -> str:
        """Tasks or steps done of the total, and the pace."""
        done, total = self.far
        far = f"{done:,}/{total:,}" if self.training is None else f"step {done:,}/{total:,}"
        return ", ".join(part for part in (far, self.pace()) if part)


Phases = dict[str, Phase]  # by artifact


def notice(event: dict[str, Any]) -> str | None:
    """The permanent line for an event, if it gets one."""
    kind, artifact = event["event"], event.get("artifact", "")
    if kind == "artifact" and event["state"] == "published":
        what = f"{event['rows']:,} rows, {size(event['bytes'])}" if event["rows"] else size(event["bytes"])
        return f"{artifact:<28} {what}, {duration(event['seconds'])}"
    if kind == "artifact" and event["state"] == "present":
        return f"{artifact:<28} up to date"
    if kind == "artifact" and event["state"] == "stored":
        return f"{artifact:<28} linked from the store"
    if kind == "phase" and event.get("taken"):
        return f"{artifact:<28} {event['phase']}: {event['taken']} of {event['tasks']} tasks reused"
    if kind == "notice":
        return str(event["text"])
    if kind == "died":
        at = f" at {event['at']}" if event.get("at") else ""
        return f"a worker died ({event['reason']}) in {artifact} {event['phase']}{at}; retrying its task"
    return None


class Notices:
    """The permanent lines. Compilation is announced only once."""

    def __init__(self) -> None:
        self._compiling = False

    def __call__(self, event: dict[str, Any]) -> str | None:
        """The line for an event, if it gets one."""
        if event["event"] == "compiling" and not self._compiling:
            self._compiling = True
            return "compiling kernels, once per version of headrace; later runs load them from the cache"
        return notice(event)


class Lines:
    """Plain lines, for logs and pipes."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream or sys.stdout
        self._clock = clock
        self._notices = Notices()
        self._phases: Phases = {}
        self._last = clock()

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.flush()

    def __call__(self, event: dict[str, Any]) -> None:
        """Handle an event of the run."""
        line = self._notices(event)
        follow(self._phases, event)
        lines = [] if line is None else [line]
        if line is None and self._phases and self._clock() - self._last > QUIET:
            lines = [f"{phase.artifact:<28} {phase.name} {phase.reached()}" for phase in self._phases.values()]
        for line in lines:
            self._last = self._clock()
            say(line, stream=self._stream)


class Bars:
    """A live bar for each active phase, with a line above for every finished artifact, and the loss of a stage being
    trained below."""

    def __init__(self, stream: TextIO | None = None) -> None:
        from rich.console import Console, RenderableType
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.text import Text

        self._notices = Notices()
        self._phases: Phases = {}
        self._bars: dict[str, tuple[Phase, TaskID]] = {}
        phases = self._phases
        console = Console(file=stream or sys.stdout)
        wide = console.width > 100
        drawn = console.width >= WIDE and console.height >= TALL and console.encoding.startswith("utf")

        class View(Progress):
            """The bars, and the curve of each stage being trained."""

            def get_renderables(self) -> Iterable[RenderableType]:
                yield from super().get_renderables()
                for phase in phases.values() if drawn else ():
                    if phase.training is not None:
                        yield Text("\n".join(phase.training.curve.lines()), no_wrap=True)

        self._progress: Progress = View(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24 if wide else 8),
            TextColumn("{task.completed}/{task.total}"),
            *([TimeElapsedColumn()] if wide else []),
            TextColumn("{task.fields[pace]}"),
            console=console,
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
        """Handle an event of the run."""
        line = self._notices(event)
        if line is not None:
            self._progress.console.print(visible(line), markup=False, highlight=False)
        follow(self._phases, event)
        for artifact, (phase, bar) in list(self._bars.items()):
            if self._phases.get(artifact) is not phase:
                self._progress.remove_task(bar)
                del self._bars[artifact]
        for artifact, phase in self._phases.items():
            if artifact not in self._bars:
                bar = self._progress.add_task(f"{artifact} {phase.name}", total=phase.tasks, pace="")
                self._bars[artifact] = phase, bar
            done, total = phase.far
            self._progress.update(self._bars[artifact][1], completed=done, total=total, pace=phase.pace())


def follow(phases: Phases, event: dict[str, Any]) -> None:
    """Update the active phases with an event: a phase starts, advances or ends."""
    kind, artifact = event["event"], event.get("artifact", "")
    if kind in ("finished", "stopped", "failed"):
        phases.clear()
    elif kind == "phase":
        phases[artifact] = Phase(artifact, event["phase"], event["tasks"], event["done"])
    elif kind == "artifact" and event["state"] == "published":
        phases.pop(artifact, None)
    elif artifact in phases:
        phase = phases[artifact]
        if kind == "task":
            phase.done += 1
        if kind == "progress":
            phase.rows += event["rows"]
            phase.bytes += event["bytes"]
        if kind == "progress" and "step" in event:
            first, began = event["step"], time.monotonic()
            curve = Curve(max(1, event["steps"]))
            if phase.training is not None:
                first, began, curve = phase.training.first, phase.training.began, phase.training.curve
            curve.add(event["step"], event["loss"])
            phase.training = Training(event["step"], event["steps"], event["loss"], first, curve, began)


def listener(stream: TextIO | None = None) -> Lines | Bars:
    """Bars if the stream is a terminal, otherwise lines."""
    stream = stream or sys.stdout
    return Bars(stream) if stream.isatty() else Lines(stream)
