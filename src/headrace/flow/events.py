"""The event log of a run: one JSON object a line, appended by the coordinator, read by ``status`` and the report.

========== =====================================================================================
event      fields besides ``time`` (seconds since 1970)
========== =====================================================================================
run        workers, memory, version
worker     pid, base (resident bytes once everything is imported)
artifact   artifact, state: started | published | present; seconds, rows, bytes when published
phase      artifact, phase, tasks, done (found done from before), taken (of these: from another artifact)
progress   artifact, phase, rows, bytes (since the last one; not written to the log)
compiling  artifact, phase: a worker compiles a kernel that is not in the cache (not written to the log)
task       artifact, phase, task, seconds, rows, bytes, peak (the worker's peak resident bytes), compiled (the seconds
           of it that went into compiling kernels)
notice     text: what a user is to hear once in a run
died       artifact, phase, task, signal or exit code, at (the document it was handling)
failed     artifact, phase, message
stopped    reason
finished   seconds
========== =====================================================================================
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from headrace.visible import escaped_json

Event = dict[str, Any]
Listener = Callable[[Event], None]
LOG = "events.jsonl"


class EventLog:
    """Appends events to ``RUN/events.jsonl`` and passes them on to a listener."""

    def __init__(self, run: Path, listener: Listener | None = None) -> None:
        self._file = open(run / LOG, "ab", buffering=0)  # noqa: SIM115 - closed in close()
        self._listener = listener
        self._noticed: set[str] = set()

    def emit(self, event: str, **fields: Any) -> None:
        """Record an event. Progress is passed on but not written: it would dwarf the rest."""
        entry: Event = {"time": round(time.time(), 3), "event": event, **fields}
        if event not in ("progress", "compiling") and not self._file.closed:
            self._file.write((escaped_json(orjson.dumps(entry).decode()) + "\n").encode())
        if self._listener is not None:
            self._listener(entry)

    def notice(self, text: str) -> None:
        """Record what a user is to hear, unless it was said before. May come after the end of the log."""
        if text not in self._noticed:
            self._noticed.add(text)
            self.emit("notice", text=text)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_events(run: Path) -> Iterator[Event]:
    """The events of a run, oldest first; a last line cut short by a kill is left out."""
    path = run / LOG
    if not path.exists():
        return
    with open(path, "rb") as f:
        for line in f:
            if line.endswith(b"\n"):
                yield orjson.loads(line)
