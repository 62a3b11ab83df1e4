"""The nodes of a run, as ``headrace run --watch`` shows them: what each does, how fast, and which tasks are slow."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from headrace.report.numbers import duration, size
from headrace.visible import visible

SLOW = 3.0  # a task that takes so many times its phase's median is a straggler; Dean and Ghemawat (2004) back up such
KNOWN = 3  # tasks of a phase that have ended before there is a median worth the name
RECENT = 200  # tasks that the median is of
HERE = "this machine"

Task = tuple[str, str, int]  # artifact, phase, number


@dataclass
class Node:
    """What is known of a node.

    Attributes:
        workers: how many tasks it runs at once; 0 if it has not said.
        began: when it was first heard of, by :func:`time.monotonic`.
        running: when each of its tasks was started.
        done: tasks that have ended there.
        bytes, rows: their sums.
    """

    workers: int
    began: float
    running: dict[Task, float] = field(default_factory=dict)
    done: int = 0
    bytes: int = 0
    rows: int = 0

    def rate(self, now: float) -> str:
        """What it has done a second."""
        seconds = now - self.began
        if not self.done or seconds < 1:
            return ""
        if self.bytes:
            return f"{size(self.bytes / seconds)}/s"
        return f"{self.rows / seconds:,.0f} rows/s" if self.rows else f"{60 * self.done / seconds:,.0f} tasks/min"


class Nodes:
    """The nodes of a run, from its events.

    Args:
        clock: in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._nodes: dict[str, Node] = {}
        self._lost = 0
        self._seconds: dict[tuple[str, str], deque[float]] = {}

    def __call__(self, event: dict[str, Any]) -> None:
        """Handle an event of the run."""
        kind, name = event["event"], visible(event.get("node") or HERE)
        if kind == "run":
            self._nodes.clear()
        elif kind == "node" and event["state"] == "lost":
            self._lost += 1
            self._nodes.pop(name, None)
        elif kind == "node":
            self._nodes[name] = Node(event["workers"], self._clock())
        elif kind in ("start", "waits", "task", "died", "error"):
            node = self._nodes.setdefault(name, Node(0, self._clock()))
            task = event["artifact"], event["phase"], event["task"]
            if kind == "start":
                node.running[task] = self._clock()
                return
            node.running.pop(task, None)
            if kind == "task":
                node.done += 1
                node.bytes += event["bytes"]
                node.rows += event["rows"]
                self._seconds.setdefault(task[:2], deque(maxlen=RECENT)).append(event["seconds"])

    def slowness(self, task: Task, since: float) -> float:
        """How many times its phase's median a task has taken so far; 0 while that is not known."""
        seconds = self._seconds.get(task[:2], ())
        if len(seconds) < KNOWN:
            return 0.0
        return (self._clock() - since) / max(statistics.median(seconds), 1.0)

    def summary(self) -> str:
        """All nodes in a line."""
        busy, slow = sum(len(node.running) for node in self._nodes.values()), len(self._stragglers())
        workers = sum(node.workers for node in self._nodes.values())
        parts = [f"{len(self._nodes):,} node{'s' if len(self._nodes) != 1 else ''}"]
        parts += [f"{busy:,} of {workers:,} workers busy" if workers else f"{busy:,} tasks running"]
        parts += [f"{self._lost:,} lost"] if self._lost else []
        parts += [f"{slow:,} slow task{'s' if slow != 1 else ''}"] if slow else []
        return ", ".join(parts)

    def _stragglers(self) -> list[Task]:
        running = [one for node in self._nodes.values() for one in node.running.items()]
        return [task for task, since in running if self.slowness(task, since) >= SLOW]

    def lines(self, width: int, height: int) -> list[str]:
        """A line for all, and one for each node that there is room for, those with the slowest task first.

        Args:
            width, height: in characters.
        """
        now = self._clock()
        told = []
        for name, node in self._nodes.items():
            oldest = min(node.running.items(), key=lambda one: one[1], default=None)
            worst, longest = 0.0, ""
            if oldest is not None:
                (artifact, phase, number), since = oldest
                worst = self.slowness(*oldest)
                times = f", {worst:.1f}x the median" if worst >= SLOW else ""
                longest = f"{artifact.rpartition('-')[0] or artifact}/{phase}/{number} {duration(now - since)}{times}"
            busy = f"{len(node.running)}/{node.workers}" if node.workers else str(len(node.running))
            told.append((worst, [name, busy, f"{node.done:,}", node.rate(now), longest]))
        told.sort(key=lambda one: -one[0])
        rows = [["node", "busy", "done", "rate", "longest task"], *(row for _, row in told)]
        shown = max(1, height - 2) if len(rows) + 1 > height else len(rows)
        sizes = [max(len(row[i]) for row in rows[:shown]) for i in range(4)]
        lines = [self.summary()]
        for row in rows[:shown]:
            name, busy, done, rate, longest = row
            cells = [name.ljust(sizes[0]), busy.rjust(sizes[1]), done.rjust(sizes[2]), rate.rjust(sizes[3]), longest]
            lines.append("  ".join(cells).rstrip())
        if len(rows) > shown:
            lines.append(f"and {len(rows) - shown:,} more")
        return [line[:width] for line in lines]
