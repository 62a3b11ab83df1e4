"""The sidecar of an annotator's scores.

score    map   the score of each document, aligned with Documents
figures  fold  how the scores are spread, for the report: by source and language, with examples to read
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from headrace.flow.artifact import Artifact
from headrace.flow.reuse import task_key
from headrace.flow.step import Phase, Step
from headrace.flow.task import TaskContext
from headrace.select import sidecar
from headrace.select.quality.scorer import Found, Scorer, check_files, scorer_of

if TYPE_CHECKING:
    from headrace.recipe.quality import AnyAnnotator
    from headrace.select.quality.training import Annotator


@dataclass(frozen=True)
class Quality(Step):
    """The scores of an annotator, aligned with the documents.

    Attributes:
        documents: the Documents step.
        annotator: the step that trains it; None for kinds that are not trained here.
        config: its section of the recipe.
        found: the files that the section names.
        stage: the annotator's name.
    """

    documents: Step
    annotator: Annotator | None
    config: AnyAnnotator
    found: Found
    stage: str = ""

    kind: ClassVar[str] = "quality"
    VERSION: ClassVar[int] = 1

    def params(self) -> dict[str, Any]:
        """What scores, besides what was trained."""
        scorer = scorer_of(self.config)
        of = {} if self.annotator is not None else scorer.identity(self.config, self.found)
        return {"kind": self.config.kind, "scorer": scorer.VERSION, **of}

    def inputs(self) -> dict[str, Step]:
        """The documents, and what was trained."""
        return {"documents": self.documents, **({"annotator": self.annotator} if self.annotator else {})}

    def phases(self) -> list[Phase]:
        """Score."""
        more = scorer_of(self.config).memory(self.config)
        return [Phase("score", self._plan, self._score, lambda spec: more + sidecar.memory(spec))]

    def _plan(self, ctx: TaskContext) -> list[dict[str, Any]]:
        """Scores depend on a document and the annotator only, so those of unchanged shards are reused."""
        shards = ctx.input("documents").shards
        trained = self.annotator.identity if self.annotator is not None else None
        return [
            {**spec, "key": task_key(self, self.params(), trained, shards[spec["shard"]]["digest"])}
            for spec in sidecar.plan(ctx)
        ]

    def _score(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        scorer = self.opened(ctx)
        about = scorer.COLUMNS, scorer.SCHEMA, scorer.annotate, scorer.TOGETHER
        return {"documents": sidecar.write(ctx, spec, *about)}

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


def _files(artifact: Artifact | None) -> Callable[[str], Path]:
    def path(name: str) -> Path:
        if artifact is None:
            raise KeyError(name)
        return artifact.file_path(name)

    return path
