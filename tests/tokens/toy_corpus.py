"""Documents and verdicts made of what a test says, and steps done in this process."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.documents.store import GIVEN, documents_of
from headrace.flow.artifact import Artifact
from headrace.flow.events import EventLog
from headrace.flow.executors.inline import InlineExecutor
from headrace.flow.runner import make
from headrace.flow.step import Phase, Step, topological


class Doc(NamedTuple):
    text: str
    source: str = "docs"
    keep: bool = True
    split: str = "train"


@dataclass(frozen=True)
class _Toy(Step):
    shards: tuple[tuple[Doc, ...], ...]

    VERSION = 1

    def params(self):
        return {"shards": [[list(doc) for doc in shard] for shard in self.shards]}

    def inputs(self):
        return {}

    def phases(self):
        return [Phase("write", lambda ctx: [{"shard": i} for i in range(len(self.shards))], self.write)]

    def write(self, ctx, spec):
        docs = self.shards[spec["shard"]]
        with ctx.shard() as out:
            # Two documents a row group, so that readers meet several groups.
            pq.write_table(self.table(docs), out.path, row_group_size=2)
            out.rows = len(docs)
        return {}

    def finish(self, ctx):
        return {"counts": {}}


class Documents(_Toy):
    kind = "documents"

    def table(self, docs):
        data = {name: [None] * len(docs) for name in GIVEN.names}
        data["text"] = [doc.text for doc in docs]
        data["source"] = [doc.source for doc in docs]
        data["id"] = [hashlib.md5(doc.text.encode()).hexdigest() for doc in docs]
        data["origin_file"], data["origin_row"] = ["f"] * len(docs), list(range(len(docs)))
        return documents_of(pa.table(data, schema=GIVEN))


class Verdicts(_Toy):
    kind = "verdicts"

    def table(self, docs):
        return pa.table({"keep": [doc.keep for doc in docs], "split": [doc.split for doc in docs]})


def build(run: Path, target: Step, careful: bool = False) -> Artifact:
    """Make a step and all that it needs."""
    run.mkdir(exist_ok=True)
    log = EventLog(run)
    made = make(topological([target]), run, InlineExecutor(run, [target], 1 << 30, careful), log, 1 << 30)
    log.close()
    return made[-1]
