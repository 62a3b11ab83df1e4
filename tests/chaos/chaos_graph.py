"""A graph whose tasks take long enough to be killed, and the coordinator that makes it on a Ray cluster.

Run as a program: ``python chaos_graph.py RUN [ADDRESS]``, on this machine without an address. It prints each event as a
line of JSON; the exit code is 2 for an error that the user can fix.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "flow"))

from toy_graph import Numbers, Shuffled

from headrace import Engine
from headrace.errors import UserError
from headrace.flow.coordinating import coordinating
from headrace.flow.events import EventLog
from headrace.flow.mirror import working_folder
from headrace.flow.runner import make
from headrace.flow.step import Step, topological

MEMORY = 64 << 20
SECONDS = float(os.environ.get("CHAOS_SECONDS", "0.3"))  # of a task


@dataclass(frozen=True)
class SlowNumbers(Numbers):
    """Numbers that take their time."""

    def write(self, ctx, spec):
        ctx.at(f"row {spec['start']}")
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            time.sleep(0.01)
            ctx.progress(rows=0, bytes=1)
        return super().write(ctx, spec)


def targets(run: Path) -> list[Step]:
    """What a worker calls to rebuild the graph."""
    return [Shuffled(SlowNumbers(shards=40, rows=500))]


def coordinate(place: str, engine: Engine, listener=None) -> None:
    """Make everything."""
    run = working_folder(place)
    with coordinating(run):
        log = EventLog(run, listener)
        try:
            with engine.start(run, "chaos_graph:targets", None, MEMORY, log) as start:
                steps = topological(targets(run))
                executor = start(steps)
                try:
                    make(steps, run, executor, log, MEMORY)
                finally:
                    executor.close()
        finally:
            log.close()


def main() -> None:
    run, *address = sys.argv[1:]
    try:
        coordinate(
            run,
            Engine("ray", *address) if address else Engine(),
            lambda event: print(json.dumps(event), flush=True),
        )
    except UserError as error:
        print(json.dumps({"event": "error", "what": str(error)}), flush=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
