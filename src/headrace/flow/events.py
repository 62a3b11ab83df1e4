"""The event log of a run: a journal written by the coordinator, read by ``status`` and the report. Nothing else
depends on it.

========== =====================================================================================
event      fields besides ``time`` (seconds since 1970)
========== =====================================================================================
run        recipe, workers, memory (the budget in bytes), version (of headrace), versions (of Python and libraries),
           hardware (processor, cores, cores_in_all, memory in bytes, gpus)
worker     pid, base (resident bytes once everything is imported); node, on a cluster
artifact   artifact, state: started | published | present | stored (in the --store); seconds, rows, bytes when published
phase      artifact, phase, tasks, done (already done before), taken (how many of these came from another artifact)
progress   artifact, phase, rows, bytes (since the last one; not written to the log); step, steps, loss in training;
           step, steps, note (requests at once, cost) where a language model writes
start      artifact, phase, task; node (not written to the log)
waits      artifact, phase, task; node: it needs more memory and starts again (not written to the log)
compiling  artifact, phase: a worker compiles a kernel that is not in the cache (not written to the log)
task       artifact, phase, task, seconds, rows, bytes, peak (the worker's peak resident bytes), compiled (the seconds
           of it spent compiling kernels); node, on a cluster; output, if it printed anything: the name of the file in
           RUN/logs, from which byte and to which
notice     text: something the user should be told once per run
died       artifact, phase, task, reason (signal or exit code), at (the document it was processing); node; output
error      artifact, phase, task, message; node; output: a task raised an error, which stops the run
node       on a cluster: node, state: joined (workers, memory, gpus) | lost (reason; tasks, to be done again)
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

from headrace.flow.journal import Journal, read_journal

Event = dict[str, Any]
Listener = Callable[[Event], None]
LOG = "events.jsonl"
UNWRITTEN = ("progress", "compiling", "start", "waits")  # they would swamp the file


class EventLog:
    """Appends events to ``RUN/events.jsonl`` and passes them on to a listener."""

    def __init__(self, run: Path, listener: Listener | None = None) -> None:
        self._journal = Journal(run / LOG)
        self._listener = listener
        self._noticed: set[str] = set()

    def emit(self, event: str, **fields: Any) -> None:
        """Record an event. Progress goes to the listener only."""
        entry: Event = {"time": round(time.time(), 3), "event": event, **fields}
        if event not in UNWRITTEN:
            self._journal.add(entry)
        if self._listener is not None:
            self._listener(entry)

    def notice(self, text: str) -> None:
        """Record something the user should be told, unless it was said before. May be called after :meth:`close`."""
        if text not in self._noticed:
            self._noticed.add(text)
            self.emit("notice", text=text)

    def close(self) -> None:
        """Close the file."""
        self._journal.close()


def read_events(run: Path, *kinds: str) -> Iterator[Event]:
    """The events of a run, oldest first, without damaged lines.

    Args:
        run: the run folder.
        kinds: only these, if any are named: nearly all events are of tasks, and parsing 100,000 takes a second.
    """
    having = [f'"event":"{kind}"'.encode() for kind in kinds]
    return (event for event in read_journal(run / LOG, having) if not kinds or event["event"] in kinds)
