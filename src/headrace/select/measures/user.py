"""A user-defined measure: one value per document, in an artifact of its own.

So adding or changing a measure recomputes only that measure. A document on which the function fails has an error
instead of a value, for which the verdicts remove it, unless the recipe asks to stop.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import pyarrow as pa

from headrace.errors import UserError
from headrace.flow.step import Phase, Step
from headrace.flow.task import TaskContext
from headrace.functions.calling import Function, Note, results, value_of
from headrace.functions.document import COLUMNS, place_in
from headrace.functions.failures import Failed
from headrace.recipe.schema import Measure
from headrace.select import sidecar

EXAMPLES = 3  # errors shown if there are too many


@dataclass(frozen=True)
class UserMeasure(Step):
    """The sidecar of a user-defined measure.

    Attributes:
        documents: the Documents step.
        config: its section of the recipe.
        max_failed: the maximum share of a source's documents that it may fail on.
        stage: the measure's name.
    """

    documents: Step
    config: Measure
    max_failed: float
    stage: str = ""

    kind: ClassVar[str] = "measure"
    VERSION: ClassVar[int] = 1

    def params(self) -> dict[str, Any]:
        """The function and the column it fills."""
        return {"name": self.stage, "type": self.config.type, **self.config.identity()}

    def inputs(self) -> dict[str, Step]:
        """The documents."""
        return {"documents": self.documents}

    def phases(self) -> list[Phase]:
        """One map over the shards of documents."""
        return [Phase("measure", sidecar.plan_reusable, self.work, sidecar.memory)]

    def schema(self) -> pa.Schema:
        """The value, and the error; at least one of them is null."""
        return pa.schema([(self.stage, sidecar.ARROW[str(self.config.type)]), ("error", pa.string())])

    def work(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        """Measure one shard."""
        function = self.config.load(ctx.run)
        failed: Counter[str] = Counter()
        examples: list[str] = []

        def look(batch: pa.RecordBatch) -> pa.Table:
            table = measured(function, str(self.config.type), batch, self.schema(), ctx.at if ctx.careful else None)
            for row, error in enumerate(table.column("error").to_pylist()):
                if error is not None:
                    failed[batch.column("source")[row].as_py()] += 1
                    if len(examples) < EXAMPLES:
                        examples.append(f"{place_in(batch, row)}: {error}")
            return table

        rows = sidecar.write(ctx, spec, COLUMNS, self.schema(), look)
        return {"documents": rows, "failed": dict(sorted(failed.items())), "examples": examples}

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """Check the number of rows, and count failures.

        Raises:
            UserError: it failed on too many documents of a source.
            ConservationError: a document has no row.
        """
        results = ctx.results("measure")
        sidecar.check_rows(ctx, sum(result["documents"] for result in results))
        counts = {}
        for source, told in ctx.input("documents").manifest.counts.items():
            failed = sum(result["failed"].get(source, 0) for result in results)
            counts[source] = {"documents": told["documents"], "failed": failed}
            if failed > self.max_failed * told["documents"]:
                examples = [example for result in results for example in result["examples"]][:EXAMPLES]
                raise UserError(
                    f"The measure {self.stage!r} failed on {failed:,} of the {told['documents']:,} documents of "
                    f"{source!r}, where {self.max_failed:.2%} are allowed. The first: {'; '.join(examples)}.",
                    f"measures.{self.stage}",
                    "Fix the function, or raise documents.max_quarantined.",
                )
        return {"counts": counts, "schema": {field.name: str(field.type) for field in self.schema()}}


def measured(function: Function, kind: str, batch: pa.RecordBatch, schema: pa.Schema, note: Note | None) -> pa.Table:
    """Call a function on documents.

    Args:
        function: the function.
        kind: the type of its values.
        batch: documents with :data:`headrace.functions.document.COLUMNS`.
        schema: the result's: value and error.
        note: called with each document before the function is.

    Raises:
        UserError: the function failed, and the recipe asks to stop.
    """
    made = results(function, batch, partial(value_of, kind=kind), note)
    values = [None if isinstance(value, Failed) else value for value in made]
    errors = [
        function.failed(value, place_in(batch, row)) if isinstance(value, Failed) else None
        for row, value in enumerate(made)
    ]
    return pa.table([pa.array(values, schema.types[0]), pa.array(errors, pa.string())], schema=schema)
