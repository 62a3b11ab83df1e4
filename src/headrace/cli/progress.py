"""Progress of a run: live bars on a terminal, plain lines in a log, both from the run's events."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TextIO

from headrace.cli.curve import AXIS, COLUMNS, LINES, Curve
from headrace.cli.terminal import say
from headrace.cli.watch import Nodes
from headrace.report.numbers import duration, size
from headrace.visible import visible

# Seconds between lines about a long phase in a log.
QUIET = 15.0
LINE, WATCHED = 120, 20  # columns and lines about nodes in a log


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
class Within:
    """How far a single task has come that counts its own steps, such as documents that a language model writes.

    Attributes:
        step: steps done, of ``steps``.
        note: what else there is to say.
        first: steps already done at the first event, at time ``began``.
    """

    step: int
    steps: int
    note: str
    first: int
    began: float = field(default_factory=time.monotonic)

    def pace(self) -> str:
        """Steps a second, the note, and the time left."""
        seconds, done = time.monotonic() - self.began, self.step - self.first
        parts = [f"{done / seconds:.3g}/s"] if done and seconds > 0 else []
        parts += [self.note] if self.note else []
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
    within: Within | None = None

    @property
    def far(self) -> tuple[int, int]:
        """Done and total: steps of training or of another single task, otherwise tasks."""
        inner = self.training or self.within
        return (self.done, self.tasks) if inner is None else (inner.step, inner.steps)

    def pace(self) -> str:
        """Rows or bytes per second since the phase started, and the time left at the current rate of tasks."""
        if inner := self.training or self.within:
            return inner.pace()
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
    if kind == "node" and event["state"] == "lost":
        again = f"; {event['tasks']} of its tasks start again" if event["tasks"] else ""
        return f"node {event['node']} is lost: {event['reason']}{again}"
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

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic, watch: bool = False
    ) -> None:
        self._stream = stream or sys.stdout
        self._clock = clock
        self._nodes = Nodes(clock) if watch else None
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
        if self._nodes is not None:
            self._nodes(event)
        lines = [] if line is None else [line]
        if line is None and self._phases and self._clock() - self._last > QUIET:
            lines = [f"{phase.artifact:<28} {phase.name} {phase.reached()}" for phase in self._phases.values()]
            lines += [] if self._nodes is None else self._nodes.lines(LINE, WATCHED)
        for line in lines:
            self._last = self._clock()
            say(line, stream=self._stream)


# What a phase's line shows, from the widest terminal to the narrowest: the first that fits all lines is taken.
SHAPES = (
    ("name", "phase", "long bar", "far", "elapsed", "pace"),
    ("name", "phase", "bar", "far", "pace"),
    ("name", "bar", "far", "pace"),
    ("short", "bar", "far", "pace"),
    ("short", "far", "pace"),
    ("short", "far", "first"),
    ("far", "first"),
)
SPINNERS = {True: "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", False: "|/-\\"}  # by whether the terminal's encoding has them
FRAMES = 8  # a second
LEAST_CURVE = 20, 4  # columns and lines that say something


def drawing(phases: Phases, width: int, height: int, utf: bool) -> list[str]:
    """A line for each active phase, and below the loss curve of each stage being trained, if there is room.

    Args:
        phases: the active phases.
        width, height: of the terminal as it is now.
        utf: whether it shows more than ASCII.
    """
    now, spinner = time.monotonic(), SPINNERS[utf]
    rows = []
    for phase in phases.values():
        (done, total), pace = phase.far, phase.pace()
        bars = {name: _bar(done, total, size, utf) for name, size in (("bar", 8), ("long bar", 24))}
        short = phase.artifact.rpartition("-")[0] or phase.artifact
        told = {"name": phase.artifact, "short": short, "phase": phase.name, "far": f"{done:,}/{total:,}", "pace": pace}
        rows.append({**told, **bars, "elapsed": duration(now - phase.began), "first": pace.split(", ")[0]})
    lines: list[str] = []
    for shape in SHAPES:
        sizes = [max((len(row[part]) for row in rows), default=0) for part in shape]
        lines = [" ".join(row[part].ljust(size) for part, size in zip(shape, sizes, strict=True)) for row in rows]
        if sum(sizes) + len(shape) < width - 1:
            break
    lines = [f"{spinner[int(now * FRAMES) % len(spinner)]} {line.rstrip()}"[: width - 1] for line in lines]
    curves = [phase.training.curve for phase in phases.values() if phase.training is not None]
    columns, left = min(COLUMNS, width - AXIS - 2), (height - len(lines) - 4) // max(1, len(curves))
    if utf and columns >= LEAST_CURVE[0] and left >= LEAST_CURVE[1]:
        lines += [line for curve in curves for line in curve.lines(columns, min(LINES, left))]
    return lines


def _bar(done: int, total: int, size: int, utf: bool) -> str:
    filled = size * done // total if total else 0
    return ("━" if utf else "#") * filled + ("─" if utf else "-") * (size - filled)


class Bars:
    """A live line for each active phase, with a permanent line above for every finished artifact, and the loss of a
    stage being trained below. It follows the terminal's size."""

    def __init__(self, stream: TextIO | None = None, watch: bool = False) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        self._notices = Notices()
        self._phases: Phases = {}
        self._nodes = nodes = Nodes() if watch else None
        console = Console(file=stream or sys.stdout)
        utf = console.encoding.startswith("utf")

        def view() -> Text:
            lines = drawing(self._phases, *console.size, utf)
            if nodes is not None:
                lines += ["", *nodes.lines(console.size.width - 1, console.size.height - len(lines) - 2)]
            text = Text("\n".join(lines), no_wrap=True, end="")
            text.highlight_regex("[━#]+", "green")
            text.highlight_regex("[\u2801-\u28ff]{3,}", "cyan")
            return text

        self._live = Live(get_renderable=view, console=console, refresh_per_second=FRAMES, transient=True)

    def __enter__(self) -> Bars:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        """Handle an event of the run."""
        line = self._notices(event)
        if line is not None:
            self._live.console.print(visible(line), markup=False, highlight=False, soft_wrap=True)
        follow(self._phases, event)
        if self._nodes is not None:
            self._nodes(event)


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
        if kind == "progress" and "note" in event:
            first, began = event["step"], time.monotonic()
            if phase.within is not None:
                first, began = phase.within.first, phase.within.began
            phase.within = Within(event["step"], event["steps"], event["note"], first, began)
        elif kind == "progress" and "step" in event:
            first, began = event["step"], time.monotonic()
            curve = Curve(max(1, event["steps"]))
            if phase.training is not None:
                first, began, curve = phase.training.first, phase.training.began, phase.training.curve
            curve.add(event["step"], event["loss"])
            phase.training = Training(event["step"], event["steps"], event["loss"], first, curve, began)


def listener(stream: TextIO | None = None, watch: bool = False) -> Lines | Bars:
    """Bars if the stream is a terminal that can move its cursor, otherwise lines; with what each node does if asked."""
    stream = stream or sys.stdout
    moves = stream.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")
    return Bars(stream, watch) if moves else Lines(stream, watch=watch)
