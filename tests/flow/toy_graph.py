"""A small graph of real steps (a source, an exchange, a fold) for the tests of the flow, and a coordinator to kill.

Run as a program: ``python toy_graph.py RUN WORKERS [EVENTS]``, which kills itself after so many events. The file
RUN/toy.json holds the parameters.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headrace.errors import UserError
from headrace.flow.events import EventLog
from headrace.flow.exchange import Spill, partition_counts, sorted_partition
from headrace.flow.executors.local import LocalExecutor
from headrace.flow.keys import keyed, salt
from headrace.flow.lock import lock
from headrace.flow.reuse import task_key
from headrace.flow.runner import make
from headrace.flow.step import Phase, Step, topological

RECORD = np.dtype([("key", "<u8"), ("row", "<u8")])


@dataclass(frozen=True)
class Numbers(Step):
    """Shards of row numbers. ``trouble`` makes task 1 misbehave, as the name says."""

    kind = "numbers"
    VERSION = 1
    shards: int = 5
    rows: int = 1000
    trouble: str = ""

    def params(self):
        return {"shards": self.shards, "rows": self.rows}

    def inputs(self):
        return {}

    def phases(self):
        return [Phase("write", lambda ctx: [{"start": i * self.rows} for i in range(self.shards)], self.write)]

    def write(self, ctx, spec):
        ctx.at(f"row {spec['start']}")
        once = ctx.run / "trouble-done"
        if ctx.task == 1 and self.trouble:
            if self.trouble == "kill" or (self.trouble == "kill once" and not once.exists()):
                once.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if self.trouble == "exit":
                os._exit(3)
            if self.trouble == "user":
                raise UserError("A bad row.", "row 7", "Take it out.")
            if self.trouble == "defect":
                raise ZeroDivisionError("one by none")
            if self.trouble == "slow":
                time.sleep(60)
            if self.trouble == "busy":  # no other thread runs, as beside a long kernel
                ctypes.PyDLL(None).sleep(60)
            if self.trouble == "careful?" and not ctx.careful:
                os.kill(os.getpid(), signal.SIGKILL)
        print("a library prints to standard output")
        with ctx.shard(".npy") as out, open(out.path, "wb") as f:
            np.save(f, np.arange(spec["start"], spec["start"] + self.rows, dtype=np.uint64))
            out.rows = self.rows
        with ctx.file(f"notes/{ctx.task:05d}.txt") as out:
            out.path.write_text(f"task {ctx.task}")
        ctx.progress(rows=self.rows, bytes=8 * self.rows)
        return {"rows": self.rows}

    def finish(self, ctx):
        return {"counts": {"rows": sum(r["rows"] for r in ctx.results("write"))}, "hint": "toy"}


@dataclass(frozen=True)
class Shuffled(Step):
    """The rows in keyed order, by an exchange."""

    kind = "shuffled"
    VERSION = 1
    numbers: Numbers
    partitions: int = 4

    def params(self):
        return {"partitions": self.partitions}

    def inputs(self):
        return {"numbers": self.numbers}

    def phases(self):
        return [
            Phase("partition", lambda ctx: [{"shard": i} for i in range(len(ctx.input("numbers").shards))], self.split),
            Phase("sort", lambda ctx: [{"partition": p} for p in range(self.partitions)], self.sort),
        ]

    def split(self, ctx, spec):
        rows = np.load(ctx.input("numbers").shard_path(spec["shard"]))
        records = np.empty(len(rows), dtype=RECORD)
        records["key"], records["row"] = keyed(salt(0, "order"), rows), rows
        with Spill(ctx, "rows", RECORD, self.partitions) as spill:
            for i in range(0, len(rows), 100):
                part = records[i : i + 100]
                spill.add((part["key"] >> np.uint64(32)) * np.uint64(self.partitions) >> np.uint64(32), part)
        return {"rows": len(rows)}

    def sort(self, ctx, spec):
        chunks = list(sorted_partition(ctx, "partition", "rows", spec["partition"], RECORD, ("key", "row")))
        records = np.concatenate(chunks) if chunks else np.empty(0, RECORD)
        assert len(records) == partition_counts(ctx, "partition", "rows")[spec["partition"]]
        with ctx.shard(".npy") as out, open(out.path, "wb") as f:
            np.save(f, records["row"])
            out.rows = len(records)
        return {"rows": len(records)}

    def finish(self, ctx):
        return {"counts": {"rows": sum(r["rows"] for r in ctx.results("sort"))}}


@dataclass(frozen=True)
class Words(Step):
    """A shard and a file for each word, by tasks that may be taken over. The word ``stop`` is an error."""

    kind = "words"
    VERSION = 1
    words: tuple[str, ...]

    def params(self):
        return {"words": self.words}

    def inputs(self):
        return {}

    def phases(self):
        return [Phase("write", self.plan, self.write)]

    def plan(self, ctx):
        return [{"word": word, "key": task_key(self, word)} for word in self.words]

    def write(self, ctx, spec):
        if spec["word"] == "stop":
            raise UserError("Stop.", "here", "")
        with ctx.shard(".txt") as out:
            out.path.write_text(spec["word"])
            out.rows = 1
        with ctx.file("notes/{task}.txt") as out:
            out.path.write_text(f"a note on {spec['word']}")
        return {"word": spec["word"]}

    def finish(self, ctx):
        return {"counts": {"words": [result["word"] for result in ctx.results("write")]}}


def targets(run: Path) -> list[Step]:
    """What a worker calls to rebuild the graph."""
    value = json.loads((run / "toy.json").read_text())
    return [Words(tuple(value["words"]))] if "words" in value else [Shuffled(Numbers(**value))]


def coordinate(run: Path, workers: int, memory: int = 64 << 20, listener=None) -> None:
    """Make everything."""
    with lock(run):
        log = EventLog(run, listener)
        executor = LocalExecutor(run, "toy_graph:targets", workers, memory, log)
        try:
            make(topological(targets(run)), run, executor, log, memory)
        finally:
            executor.close()
            log.close()


def suicide(events: int):
    """A listener that kills this process at an event."""

    def hear(event: dict) -> None:
        nonlocal events
        events -= 1
        if events == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return hear


if __name__ == "__main__":
    coordinate(Path(sys.argv[1]), int(sys.argv[2]), listener=suicide(int(sys.argv[3])) if sys.argv[3:] else None)
