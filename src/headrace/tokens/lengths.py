"""How many tokens each document has, before it is decided which are kept; needs a tokenizer that does not depend on
that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from headrace.flow.reuse import task_key
from headrace.flow.step import Phase, Step
from headrace.flow.task import TaskContext
from headrace.select import sidecar
from headrace.tokens.engine import Texts
from headrace.tokens.load import open_engine

_ENGINE = 48 << 20  # the library and the tokenizer, see tokens/step.py
SCHEMA = pa.schema([pa.field("tokens", pa.int64(), nullable=False)])


@dataclass(frozen=True)
class Lengths(Step):
    """A sidecar of token counts, aligned with the documents; the ends of documents are not counted.

    Attributes:
        documents: the Documents step.
        tokenizer: the Tokenizer step, of a tokenizer from a file.
    """

    documents: Step
    tokenizer: Step

    kind: ClassVar[str] = "lengths"
    VERSION: ClassVar[int] = 1

    def params(self) -> dict[str, Any]:
        """None."""
        return {}

    def inputs(self) -> dict[str, Step]:
        """Documents and tokenizer."""
        return {"documents": self.documents, "tokenizer": self.tokenizer}

    def phases(self) -> list[Phase]:
        """One map over the shards of documents."""
        return [Phase("count", self._plan, self._count, lambda spec: _ENGINE + sidecar.memory(spec))]

    def _plan(self, ctx: TaskContext) -> list[dict[str, Any]]:
        shards = ctx.input("documents").shards
        tokenizer = ctx.input("tokenizer").manifest.extra["fingerprint"]
        return [
            {**spec, "key": task_key(self, tokenizer, shards[spec["shard"]]["digest"])} for spec in sidecar.plan(ctx)
        ]

    def _count(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        engine = open_engine(ctx.input("tokenizer"), ctx.threads)

        def look(batch: pa.RecordBatch) -> pa.Table:
            encoded = engine.encode(Texts.of(batch.column("text")))
            return pa.table([pa.array(np.diff(encoded.offsets))], schema=SCHEMA)

        return {"documents": sidecar.write(ctx, spec, ("text",), SCHEMA, look)}

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """Check the number of rows.

        Raises:
            ConservationError: a document has no row.
        """
        rows = sum(result["documents"] for result in ctx.results("count"))
        sidecar.check_rows(ctx, rows)
        return {"counts": {"documents": rows}, "schema": {field.name: str(field.type) for field in SCHEMA}}
