"""How long each artifact took and how much memory its workers had, from the event log."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.flow.artifact import Artifact
from headrace.flow.events import read_events
from headrace.report.facts import Work


@dataclass
class _Tally:
    seconds: float | None = None
    busy: float = 0.0
    tasks: int = 0
    peak: int | None = None
    died: int = 0
    order: int = -1


@dataclass
class Timing:
    """What the event log tells about the run as a whole."""

    workers: int | None = None
    memory: int | None = None
    base: int | None = None
    seconds: float | None = None
    artifacts: dict[str, _Tally] = field(default_factory=dict)


def timing(run: Path) -> Timing:
    """Read the event log once."""
    told = Timing()
    for number, event in enumerate(read_events(run)):
        kind = event["event"]
        if kind == "run":
            told.workers, told.memory, told.seconds = event.get("workers"), event.get("memory"), None
        elif kind == "worker":
            told.base = max(told.base or 0, int(event["base"]))
        elif kind == "finished":
            told.seconds = event["seconds"]
        elif "artifact" in event:
            _count(told.artifacts.setdefault(event["artifact"], _Tally()), event, number)
    return told


def _count(tally: _Tally, event: dict[str, Any], number: int) -> None:
    if event["event"] == "task":
        tally.busy += event["seconds"]
        tally.tasks += 1
        tally.peak = max(tally.peak or 0, int(event["peak"]))
    elif event["event"] == "died":
        tally.died += 1
    elif event["event"] == "artifact" and event["state"] == "published":
        tally.seconds, tally.order = event["seconds"], number


def work(told: Timing, artifacts: list[Artifact]) -> list[Work]:
    """The making of the given artifacts, in the order in which they were published."""
    rows = []
    for artifact in artifacts:
        name = artifact.path.name
        tally = told.artifacts.get(name, _Tally())
        manifest = artifact.manifest
        entry = Work(
            artifact=name,
            kind=manifest.kind,
            stage=manifest.stage,
            seconds=tally.seconds,
            busy=round(tally.busy, 3),
            rows=artifact.rows,
            bytes=artifact.bytes,
            tasks=tally.tasks,
            peak=tally.peak,
            died=tally.died,
        )
        rows.append((tally.order, entry))
    return [entry for _, entry in sorted(rows, key=lambda pair: pair[0])]
