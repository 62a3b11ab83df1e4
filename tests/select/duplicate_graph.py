"""Documents given in a test, and an executor within this process: for the tests of duplicates and verdicts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.documents.ids import content_id
from headrace.documents.store import GIVEN, documents_of
from headrace.flow.artifact import Artifact
from headrace.flow.events import EventLog
from headrace.flow.executors import Request
from headrace.flow.executors.inline import InlineExecutor
from headrace.flow.markers import Marker
from headrace.flow.runner import make
from headrace.flow.step import Phase, Step, topological


@dataclass(frozen=True)
class Given(Step):
    """Documents from rows: ``text``, and what else of the schema a test cares about."""

    rows: Sequence[dict[str, Any]] = field(compare=False)
    sources: tuple[str, ...] = ("s",)
    shard_rows: int = 3
    group_rows: int = 2

    kind = "documents"
    VERSION = 1

    def params(self):
        everything = repr([(row["text"], row.get("source")) for row in self.rows]).encode()
        return {"content": hashlib.md5(everything).hexdigest(), "shard": self.shard_rows, "group": self.group_rows}

    def inputs(self):
        return {}

    def phases(self):
        return [Phase("write", lambda ctx: [{"at": i} for i in range(0, len(self.rows), self.shard_rows)], self.write)]

    def write(self, ctx, spec):
        rows = [
            {
                "id": content_id(row["text"].encode()),
                "source": self.sources[0],
                "origin_file": "f",
                "origin_row": n,
                **row,
            }
            for n, row in enumerate(self.rows[spec["at"] : spec["at"] + self.shard_rows], spec["at"])
        ]
        with ctx.shard() as out:
            table = documents_of(pa.Table.from_pylist(rows, schema=GIVEN))
            pq.write_table(table, out.path, row_group_size=self.group_rows)
            out.rows = len(rows)
        return {}

    def finish(self, ctx):
        counts = {name: {"documents": 0} for name in self.sources}
        for row in self.rows:
            counts[row.get("source", self.sources[0])]["documents"] += 1
        return {"counts": counts, "sources": list(self.sources)}


class Repeating(InlineExecutor):
    """Does the tasks of a phase in reverse order, each ``repeat`` times, as retries might."""

    repeat = 1

    def submit(self, requests: list[Request]) -> None:
        super().submit(requests[::-1])

    def execute(self, request: Request) -> Marker:
        for _ in range(self.repeat):
            marker = super().execute(request)
        return marker


def run_steps(
    run: Path, target: Step, memory: int = 256 << 20, careful: bool = False, repeat: int = 1
) -> dict[str, Artifact]:
    """Make a step and all it needs: kind -> artifact."""
    steps = topological([target])
    run.mkdir(parents=True, exist_ok=True)
    executor = Repeating(run, steps, memory, careful)
    executor.repeat = repeat
    log = EventLog(run, None)
    try:
        return {artifact.manifest.kind: artifact for artifact in make(steps, run, executor, log, memory)}
    finally:
        log.close()


def read(artifact: Artifact) -> pa.Table:
    """All rows of a sidecar."""
    return pa.concat_tables([pq.read_table(artifact.shard_path(i)) for i in range(len(artifact.shards))])


def digests(artifact: Artifact) -> list[str]:
    return [shard["digest"] for shard in artifact.shards]
