"""The sidecar of an annotator's scores.

score  map   the score of each document, aligned with Documents
solve  map   the scores of benchmarks' solutions
look   fold  how the scores are spread (:mod:`headrace.select.quality.spread`), for the report
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from headrace.documents.store import GIVEN, documents_of, read_columns
from headrace.flow.artifact import Artifact
from headrace.flow.keys import keyed, parse_ids, salt, unit
from headrace.flow.reuse import task_key
from headrace.flow.step import Phase, Step
from headrace.flow.task import TaskContext
from headrace.select import sidecar
from headrace.select.contamination.benchmarks import BenchmarkFile, read_items
from headrace.select.quality.scorer import Found, Scorer, check_files, scorer_of
from headrace.select.quality.spread import SAMPLE, SAMPLED, spread

if TYPE_CHECKING:
    from headrace.recipe.quality import AnyAnnotator
    from headrace.select.quality.training import Annotator

SPREAD = "spread.json"
_LOOKING = (64 << 20) + 4 * SAMPLED * SAMPLE.itemsize


@dataclass(frozen=True)
class Quality(Step):
    """The scores of an annotator, aligned with the documents.

    Attributes:
        documents: the Documents step.
        annotator: the step that trains it; None for kinds that are not trained here.
        config: its section of the recipe.
        found: the files that the section names.
        benchmarks: files of benchmarks' solutions.
        normalise: how to normalize these: as the documents are.
        seed: the recipe's.
        stage: the annotator's name.
    """

    documents: Step
    annotator: Annotator | None
    config: AnyAnnotator
    found: Found
    benchmarks: tuple[BenchmarkFile, ...]
    normalise: str
    seed: int
    stage: str = ""

    kind: ClassVar[str] = "quality"
    VERSION: ClassVar[int] = 2

    def params(self) -> dict[str, Any]:
        """What scores, besides what was trained; and what else is scored."""
        about = {"benchmarks": [one.params() for one in self.benchmarks]}
        return {**self.scoring(), "seed": self.seed, **(about if self.benchmarks else {})}

    def scoring(self) -> dict[str, Any]:
        """What decides the scores of documents, besides what was trained."""
        scorer = scorer_of(self.config)
        of = {} if self.annotator is not None else scorer.identity(self.config, self.found)
        return {"kind": self.config.kind, "scorer": scorer.VERSION, **of}

    def inputs(self) -> dict[str, Step]:
        """The documents, and what was trained."""
        return {"documents": self.documents, **({"annotator": self.annotator} if self.annotator else {})}

    def phases(self) -> list[Phase]:
        """Score, solve, look."""
        more = scorer_of(self.config).memory(self.config)
        return [
            Phase("score", self._plan, self._score, lambda spec: more + sidecar.memory(spec)),
            Phase("solve", self._plan_solutions, self._solve, lambda spec: more + sidecar.memory({"bytes": 0})),
            Phase("look", lambda ctx: [{}], self._look, lambda spec: _LOOKING),
        ]

    def _plan(self, ctx: TaskContext) -> list[dict[str, Any]]:
        """Scores depend on a document and the annotator only, so those of unchanged shards are reused."""
        shards = ctx.input("documents").shards
        trained = self.annotator.identity if self.annotator is not None else None
        return [
            {**spec, "key": task_key(self, self.scoring(), trained, shards[spec["shard"]]["digest"])}
            for spec in sidecar.plan(ctx)
        ]

    def _score(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        scorer = self.opened(ctx)
        about = scorer.COLUMNS, scorer.SCHEMA, lambda batch: _said(scorer, batch), scorer.TOGETHER
        return {"documents": sidecar.write(ctx, spec, *about)}

    def _plan_solutions(self, ctx: TaskContext) -> list[dict[str, Any]]:
        return [{"benchmark": name} for name in dict.fromkeys(one.benchmark for one in self.benchmarks)]

    def _solve(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        """Score a benchmark's items: the text of their fields, one after the other."""
        mine = tuple(one for one in self.benchmarks if one.benchmark == spec["benchmark"])
        texts = ["\n".join(item.fields.values()) for item in read_items(mine, self.normalise, ctx.at)]
        empty = {field.name: None if field.nullable else "" for field in GIVEN}
        rows = [{**empty, "text": text, "origin_row": i} for i, text in enumerate(texts)]
        [batch] = documents_of(pa.Table.from_pylist(rows, schema=GIVEN)).combine_chunks().to_batches()
        scorer = self.opened(ctx)
        scores = scorer.annotate(batch.select(list(scorer.COLUMNS))).column("score")
        with ctx.intermediate(f"{spec['benchmark']}.npy") as out, open(out.path, "wb") as f:
            np.save(f, scores.to_numpy())
        return {"items": len(texts)}

    def _look(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        documents = ctx.input("documents")
        share = SAMPLED / max(1, documents.rows)
        parts, sources, languages = [np.empty(0, dtype=SAMPLE)], dict[str, int](), dict[str, int]()
        for shard, marker in enumerate(ctx.markers("score")):
            about = read_columns(documents.shard_path(shard), ["id", "source", "language"])
            scores = read_columns(ctx.reach(marker["files"][0]), ["score"]).column("score")
            keys = keyed(salt(self.seed, "quality"), parse_ids(about.column("id")))
            chosen = np.flatnonzero(unit(keys) < share)
            some = np.empty(len(chosen), dtype=SAMPLE)
            some["score"] = scores.fill_null(float("nan")).to_numpy()[chosen]
            some["key"], some["row"] = keys[chosen], chosen + int(documents.row_offsets[shard])
            for name, known in (("source", sources), ("language", languages)):
                names = about.column(name).take(pa.array(chosen)).fill_null("").to_pylist()
                some[name] = [known.setdefault(one, len(known)) for one in names]
            parts.append(some)
        scored = {s["benchmark"]: np.load(ctx.scratch("solve", f"{s['benchmark']}.npy")) for s in ctx.specs("solve")}
        figures = spread(np.concatenate(parts), list(sources), list(languages), scored)
        with ctx.file(SPREAD) as out:
            out.path.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2))
        return {}

    def opened(self, ctx: TaskContext) -> Scorer:
        """The scorer, opened once per process."""
        if "scorer" not in self._once:
            artifact = ctx.input("annotator") if self.annotator is not None else None
            check_files(self.config, self.found, f"quality.annotators.{self.stage}")
            self._once["scorer"] = scorer_of(self.config).open(self.config, _files(artifact), ctx.memory)
        return self._once["scorer"]

    @cached_property
    def _once(self) -> dict[str, Scorer]:
        return {}

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """Check the number of rows.

        Raises:
            ConservationError: a document has no row.
        """
        rows = sum(result["documents"] for result in ctx.results("score"))
        sidecar.check_rows(ctx, rows)
        schema = scorer_of(self.config).SCHEMA
        return {"counts": {"documents": rows}, "schema": {field.name: str(field.type) for field in schema}}


def _said(scorer: Scorer, batch: pa.RecordBatch) -> pa.Table:
    """A scorer's rows; null for texts of white space alone, which it would score by its bias."""
    table = scorer.annotate(batch)
    words = pc.not_equal(pc.utf8_trim_whitespace(batch.column("text")), "")
    columns = [pc.if_else(words, column, pa.scalar(None, column.type)) for column in table.combine_chunks().columns]
    return pa.table(columns, schema=table.schema)


def _files(artifact: Artifact | None) -> Callable[[str], Path]:
    def path(name: str) -> Path:
        if artifact is None:
            raise KeyError(name)
        return artifact.file_path(name)

    return path
