"""What the tasks of a run printed, from the logs of all workers on all machines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.flow.events import read_events

LOGS = "logs"  # in the run folder
MOST = 1 << 20  # bytes of one task's output that are read: the end, where errors are


@dataclass(frozen=True)
class Output:
    """What a task printed, or what else is in a log.

    Attributes:
        file: the log's name.
        text: what is there, at most the last ``MOST`` bytes.
        artifact: the task's, empty for what no finished task printed.
        phase: the task's.
        task: the task's number.
        node: where it ran, empty for the coordinator's machine.
        end: how it ended: ``done``, ``died: REASON`` or ``error: MESSAGE``.
    """

    file: str
    text: str
    artifact: str = ""
    phase: str = ""
    task: int = -1
    node: str = ""
    end: str = ""


def outputs(run: Path) -> Iterator[Output]:
    """What was printed: by task, in the order in which they ended, then what remains of each log."""
    told: dict[str, int] = {}
    for event in read_events(run):
        place = _place(event.get("output"))
        if event["event"] in ("task", "died", "error") and place is not None:
            name, start, stop = place
            told[name] = max(told.get(name, 0), stop)
            text = _read(run / LOGS / name, start, stop)
            if text:
                yield Output(
                    name, text, event["artifact"], event["phase"], event["task"], event.get("node", ""), _end(event)
                )
    for path in sorted((run / LOGS).glob("*.log")):
        text = _read(path, told.get(path.name, 0), path.stat().st_size)
        if text:
            yield Output(path.name, text)


def _end(event: dict[str, Any]) -> str:
    """How a task ended."""
    if event["event"] == "task":
        return "done"
    return f"died: {event['reason']}" if event["event"] == "died" else f"error: {event['message']}"


def _place(output: Any) -> tuple[str, int, int] | None:
    """An event's ``output``: a file in the folder of logs and a stretch of it; None if it is none."""
    if not isinstance(output, list) or len(output) != 3 or Path(str(output[0])).name != output[0]:
        return None
    return str(output[0]), int(output[1]), int(output[2])


def _read(path: Path, start: int, stop: int) -> str:
    start = max(start, stop - MOST)
    try:
        with open(path, "rb") as f:
            f.seek(start)
            return f.read(stop - start).decode("utf-8", "replace").strip("\n")
    except FileNotFoundError:
        return ""
