"""Deduplication of many documents in little memory, against planted truth.

    python -m bench.scale --documents 1000000 10000000 --memory 2GB --workers 2

prints one JSON line for each number of documents: seconds of each phase, documents a second, and the peak of resident
memory of all processes together (sum of their sets; and proportional, where pages that they share count once). What the
plan makes up (documents, fingerprints) is timed apart from what headrace does with it: of the phase in which
fingerprints are made and written, the share that making them took does not count. A run that was
killed is taken up again by the same command with the same ``--out``. ``--save FILE`` adds the rows to a JSON list, in
place of those of the same size; ``--plot FILE`` draws the curve of such a list.

    python -m bench.scale --keys 1000000000 --memory 2GB

sorts so many row keys instead (:mod:`bench.row_keys`).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bench.memory import Memory
from bench.planted import MAKING, SOURCE, Documents, Plan, PlantedSignatures
from bench.row_keys import measure_sort
from headrace.flow.artifact import Artifact
from headrace.flow.events import EventLog
from headrace.flow.executors.local import LocalExecutor
from headrace.flow.lock import lock
from headrace.flow.runner import make
from headrace.flow.step import Step, topological
from headrace.flow.storage import read_json
from headrace.recipe.base import parse_size
from headrace.recipe.schema import Filters, Near, Split, Withdrawn

MADE_UP = ("documents", "write")
SIGNED = ("signatures", "sign")


def targets(run: Path) -> list[Step]:
    """The graph of a run, as its workers build it."""
    from headrace.select.duplicates.step import Duplicates
    from headrace.select.verdicts.step import Verdicts

    documents = Documents(json.loads((run / "scale.json").read_text())["documents"])
    duplicates = Duplicates(PlantedSignatures(documents, Near()), True)
    sources = (SOURCE,)
    return [
        Verdicts(
            documents,
            measures=None,
            duplicates=duplicates,
            contamination=None,
            own={},
            filters=Filters(),
            code_in=frozenset(),
            expressions=(),
            decontaminate=None,
            remove="component",
            near=None,
            priority=sources,
            sources=sources,
            split=Split(),
            seed=1,
            withdrawn=Withdrawn(),
        )
    ]


def processor_seconds() -> float:
    """What this process and its living children have used."""
    total, me = 0.0, psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return float(total)


class Clock:
    """Listens to a run: seconds of each phase, and tasks that were done before this run began."""

    def __init__(self, memory: Memory) -> None:
        self.seconds: dict[tuple[str, str], float] = {}
        self.processor: dict[tuple[str, str], float] = {}
        self.in_tasks: dict[tuple[str, str], float] = {}
        self._used = 0.0
        self.kept = self.tasks = 0
        self._memory, self._now, self._since = memory, ("", ""), time.monotonic()

    def __call__(self, event: dict[str, Any]) -> None:
        if event["event"] == "phase":
            self.turn((event["artifact"].split("-")[0], event["phase"]))
            self.kept += event["done"]
        elif event["event"] == "task":
            self.tasks += 1
            self.in_tasks[self._now] = self.in_tasks.get(self._now, 0.0) + event["seconds"]
        elif event["event"] == "artifact":
            self.turn((event["artifact"].split("-")[0], event["state"]))

    def turn(self, now: tuple[str, str]) -> None:
        at = time.monotonic()
        self.seconds[self._now] = self.seconds.get(self._now, 0.0) + at - self._since
        used = processor_seconds()
        self.processor[self._now] = self.processor.get(self._now, 0.0) + max(0.0, used - self._used)
        self._now, self._since, self._used = now, at, used
        self._memory.phase = " ".join(now)


def work(run: Path, documents: int, workers: int, memory: int) -> tuple[dict[str, Artifact], Clock, Memory]:
    """Make everything."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "scale.json").write_text(json.dumps({"documents": documents}))
    sampler = Memory()
    clock = Clock(sampler)
    sampler.start()
    with lock(run):
        log = EventLog(run, clock)
        executor = LocalExecutor(run, "bench.scale:targets", workers, memory, log)
        try:
            artifacts = make(topological(targets(run)), run, executor, log, memory)
            made = {artifact.manifest.kind: artifact for artifact in artifacts}
        finally:
            executor.close()
            log.close()
            sampler.stop()
    clock.turn(("", ""))
    return made, clock, sampler


def check(made: dict[str, Artifact], documents: int) -> None:
    """Compare every row with the plan.

    Raises:
        SystemExit: something differs.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    plan = Plan(documents)
    counts = made["duplicates"].manifest.counts
    told = {name: counts[name] for name in plan.counts()}
    if told != plan.counts():
        raise SystemExit(f"counts are {told}, planted were {plan.counts()}")
    kept = np.zeros(documents, dtype=np.uint8)
    offsets = made["duplicates"].row_offsets
    for shard in range(len(offsets) - 1):
        rows = np.arange(offsets[shard], offsets[shard + 1], dtype=np.uint64)
        label, size, first = plan.truth(rows)
        table = pq.read_table(made["duplicates"].shard_path(shard))
        own = (
            pc.fill_null(table.column("component"), 0).to_numpy(),
            pc.fill_null(table.column("exact_of"), 0).to_numpy(),
        )
        right = (table.column("size").to_numpy() == size) & (own[0] == np.where(size > 1, label, 0))
        right &= own[1] == np.where(first != rows, first, 0)
        if not right.all():
            raise SystemExit(f"row {rows[~right][0]} has another component than was planted, and {np.sum(~right)} rows")
        keep = pq.read_table(made["verdicts"].shard_path(shard), columns=["keep"]).column("keep").to_numpy()
        np.add.at(kept, label[keep].astype(np.int64), np.uint8(1))
    represented = int(np.count_nonzero(kept == 1))
    expected = documents - plan.counts()["members"] + plan.counts()["components"]
    if represented != expected or int(kept.max(initial=0)) > 1:
        raise SystemExit(f"{represented} components keep one document, {expected} should")


def measure(out: Path, documents: int, workers: int, memory: int) -> dict[str, Any]:
    """One point of the curve."""
    made, clock, sampler = work(out, documents, workers, memory)
    check(made, documents)
    seconds, processor = (
        {f"{kind} {phase}": round(s, 2) for (kind, phase), s in of.items() if s >= 0.005 and kind}
        for of in (clock.seconds, clock.processor)
    )
    making = float(str(read_json(out / MAKING))) / max(clock.in_tasks.get(SIGNED, 0.0), 1e-9)
    making = min(1.0, making) * clock.seconds.get(SIGNED, 0.0)
    ours = sum(s for key, s in clock.seconds.items() if key != MADE_UP) - making
    return {
        "documents": documents,
        "workers": workers,
        "memory": memory,
        "seconds": round(ours, 2),
        "documents_per_second": round(documents / ours),
        "making_fingerprints": round(making, 2),
        "peak_rss": sampler.rss,
        "peak_pss": sampler.pss,
        "phases": seconds,
        "processor_seconds": processor,
        "peak_rss_by_phase": {name: peak for name, peak in sampler.by_phase.items() if name},
        "tasks": clock.tasks,
        "tasks_done_before": clock.kept,
        "load": os.getloadavg()[0],
        "cores": os.cpu_count(),
    }


def save(path: Path, rows: list[dict[str, Any]]) -> None:
    """Put rows into a JSON list in order of size, in place of those of the same size."""
    have = {row["documents"]: row for row in json.loads(path.read_text())} if path.exists() else {}
    have |= {row["documents"]: row for row in rows}
    path.write_text(json.dumps([have[size] for size in sorted(have)], indent=1) + "\n")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__.split("\n")[0])
    parser.add_argument("--documents", type=int, nargs="+", default=[1_000_000], help="how many; several make a curve")
    parser.add_argument("--memory", default="2GB", help="budget of all workers together")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="keep the run here and take it up again; a temporary folder otherwise")
    parser.add_argument("--save", type=Path, help="add the rows to this JSON file")
    parser.add_argument("--plot", type=Path, help="draw the rows of --save to this file, and measure nothing")
    parser.add_argument("--keys", type=int, help="sort so many row keys instead")
    options = parser.parse_args()
    memory = parse_size(options.memory)
    if options.plot is not None:
        from bench.scale_plot import draw

        draw(json.loads(options.save.read_text()), options.plot)
        return
    root = str(Path(__file__).resolve().parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    for size in [options.keys] if options.keys else options.documents:
        folder = options.out / str(size) if options.out else Path(tempfile.mkdtemp(prefix="headrace-scale-"))
        try:
            if options.keys:
                print(json.dumps(measure_sort(folder, size, memory)), flush=True)
                continue
            row = measure(folder, size, options.workers, memory)
            print(json.dumps(row), flush=True)
            if options.save is not None:
                save(options.save, [row])
        finally:
            if options.out is None:
                shutil.rmtree(folder)


if __name__ == "__main__":
    main()
