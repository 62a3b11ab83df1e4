"""Graphs of real steps over a few written documents, for the tests of sidecars; workers rebuild them from RUN."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.documents.ids import content_id
from headrace.documents.store import GIVEN, documents_of
from headrace.flow.artifact import Artifact
from headrace.flow.events import EventLog
from headrace.flow.executors.local import LocalExecutor
from headrace.flow.lock import lock
from headrace.flow.runner import make
from headrace.flow.step import Phase, Step, topological
from headrace.recipe.schema import Recipe
from headrace.select.contamination.hits import Hits
from headrace.select.contamination.step import Contamination
from headrace.select.duplicates.step import Duplicates
from headrace.select.measures.step import Measures
from headrace.select.verdicts.step import Verdicts


def documents_batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    """Documents of the real schema; only ``text`` must be given."""
    full = [
        {"id": content_id(row["text"].encode()), "source": "s", "origin_file": "f", "origin_row": i, **row}
        for i, row in enumerate(rows)
    ]
    return documents_of(pa.RecordBatch.from_pylist(full, schema=GIVEN))


@dataclass(frozen=True)
class Written(Step):
    """The documents of RUN/documents.json in shards of a few rows."""

    kind = "documents"
    VERSION = 1
    rows: int
    shard_rows: int = 3

    def params(self):
        return {"rows": self.rows, "shard_rows": self.shard_rows}

    def inputs(self):
        return {}

    def phases(self):
        return [Phase("write", lambda ctx: [{"start": i} for i in range(0, self.rows, self.shard_rows)], self.write)]

    def write(self, ctx, spec):
        rows = json.loads((ctx.run / "documents.json").read_text())
        table = pa.Table.from_batches([documents_batch(rows).slice(spec["start"], self.shard_rows)])
        with ctx.shard() as out:
            pq.write_table(table, out.path, row_group_size=2)
            out.rows = table.num_rows
        return {"documents": table.num_rows}

    def finish(self, ctx):
        return {"counts": {"s": {"documents": self.rows}}}


def targets(run: Path) -> list[Step]:
    """What a worker calls to rebuild the graph."""
    recipe = Recipe.model_validate_json((run / "recipe.json").read_text())
    documents = Written(len(json.loads((run / "documents.json").read_text())))
    sidecars: dict[str, Step] = {"measures": Measures(documents)}
    extra: list[Step] = []
    if recipe.decontaminate is not None:
        sidecars["contamination"] = contamination = Contamination.of(recipe, documents)
        extra = [Hits(contamination, recipe.decontaminate)]
    if recipe.deduplicate is not None:
        sidecars["duplicates"] = Duplicates.of(recipe, documents)
        return [Verdicts.of(recipe, documents, **sidecars), *extra]
    return [*sidecars.values(), *extra]


def recipe_of(**sections: Any) -> Recipe:
    """A recipe of one source ``s``."""
    return Recipe.model_validate({"name": "r", "sources": {"s": {"files": "f"}}, **sections})


def coordinate(run: Path, rows: list[dict[str, Any]], recipe: Recipe, workers: int = 1) -> dict[str, Artifact]:
    """Make everything in a run folder: kind -> artifact. PYTHONPATH must lead the workers here."""
    run.mkdir(exist_ok=True)
    (run / "documents.json").write_text(json.dumps(rows))
    (run / "recipe.json").write_text(recipe.model_dump_json())
    with lock(run):
        log = EventLog(run, None)
        executor = LocalExecutor(run, "measure_graph:targets", workers, 512 << 20, log)
        try:
            made = make(topological(targets(run)), run, executor, log, 512 << 20)
            return {artifact.manifest.kind: artifact for artifact in made}
        finally:
            executor.close()
            log.close()
