"""How long each artifact took, how much memory its workers used and what it was built with, from the event log."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from headrace.flow.artifact import Artifact
from headrace.flow.events import read_events
from headrace.report.facts import Environment, Work


@dataclass
class _Tally:
    seconds: float | None = None
    busy: float = 0.0
    tasks: int = 0
    peak: int | None = None
    died: int = 0
    order: int = -1
    run: int = 0


@dataclass
class Timing:
    """What the event log says about the whole run; ``runs`` are its ``run`` events, in order."""

    runs: list[dict[str, Any]] = field(default_factory=list)
    base: int | None = None
    seconds: float | None = None
    artifacts: dict[str, _Tally] = field(default_factory=dict)


def timing(run: Path) -> Timing:
    """Read the event log once."""
    told = Timing()
    for number, event in enumerate(read_events(run)):
        kind = event["event"]
        if kind == "run":
            told.runs.append(event)
            told.seconds = None
        elif kind == "worker":
            told.base = max(told.base or 0, int(event["base"]))
        elif kind == "finished":
            told.seconds = event["seconds"]
        elif "artifact" in event:
            tally = told.artifacts.setdefault(event["artifact"], _Tally())
            _count(tally, event, number)
            if event["event"] == "artifact" and event["state"] == "published":
                tally.run = len(told.runs)
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
    """How the given artifacts were built, in order of publication."""
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


def environments(told: Timing, artifacts: list[Artifact]) -> list[Environment]:
    """What the given artifacts were built with; runs with equal environments are combined."""
    made = Counter(told.artifacts[a.path.name].run for a in artifacts if a.path.name in told.artifacts)
    found: list[Environment] = []
    for number in sorted(made):
        if not number:
            continue  # the log does not say which run it was
        new = _environment(told.runs[number - 1])
        same = next((i for i, old in enumerate(found) if replace(old, runs=[], artifacts=0) == new), None)
        if same is None:
            found.append(replace(new, runs=[number], artifacts=made[number]))
        else:
            old = found[same]
            found[same] = replace(old, runs=[*old.runs, number], artifacts=old.artifacts + made[number])
    return found


def _environment(event: dict[str, Any]) -> Environment:
    hardware = event.get("hardware", {})
    own = {"headrace": event["version"]} if "version" in event else {}
    return Environment(
        runs=[],
        artifacts=0,
        workers=event.get("workers"),
        memory=event.get("memory"),
        versions=own | event.get("versions", {}),
        processor=hardware.get("processor"),
        cores=hardware.get("cores"),
        cores_in_all=hardware.get("cores_in_all"),
        machine_memory=hardware.get("memory"),
        gpus=hardware.get("gpus", []),
    )
