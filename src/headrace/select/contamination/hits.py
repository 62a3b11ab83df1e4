"""Hits: every benchmark item in the documents that decontamination removes, with the item's text beside the document's.

The sidecar names one item of each document, and no text, because most rows are about nothing. This is for people who
want to see whether a removal is right, after the benchmark files may be gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from headrace.flow.step import Phase, Step
from headrace.flow.task import TaskContext
from headrace.recipe.schema import Decontaminate
from headrace.select import sidecar
from headrace.select.contamination.index import Index
from headrace.select.contamination.limits import same_shape, whole_or_much
from headrace.select.contamination.step import Contamination, characters

BEFORE, CONTEXT = 200, 2_000  # characters of a document before the evidence, and in all
ITEM = 4_000  # characters of an item
BATCH_BYTES = 8 << 20
COLUMNS = ("id", "source", "origin_file", "origin_row", "text")

SCHEMA = pa.schema(
    [
        ("row", pa.int64()),  # the document
        ("id", pa.string()),
        ("source", pa.string()),
        ("origin_file", pa.string()),
        ("origin_row", pa.int64()),
        ("item", pa.string()),
        ("method", pa.string()),  # substring, ngram or shape
        ("field", pa.string()),  # the text found whole; null otherwise
        ("overlap", pa.float64()),  # of the item's n-grams, or of the program's shape
        ("matched", pa.int64()),
        ("ngrams", pa.int64()),
        ("start", pa.int64()),  # the evidence in the document's text: characters [start, end)
        ("end", pa.int64()),
        ("context", pa.string()),  # the document's text around it
        ("context_start", pa.int64()),
        ("text", pa.string()),  # the item's text: what was found whole, all that was searched for, or its program
    ]
)


@dataclass(frozen=True)
class Hits(Step):
    """A table of the items in contaminated documents, a shard of it for each shard of documents.

    Attributes:
        contamination: the sidecar, whose benchmarks these are.
        config: the recipe's section, for its limits.
    """

    contamination: Contamination
    config: Decontaminate

    kind: ClassVar[str] = "hits"
    VERSION: ClassVar[int] = 1

    def params(self) -> dict[str, Any]:
        """The limits."""
        return {"limits": self.config.limits}

    def inputs(self) -> dict[str, Step]:
        """The documents, and what was found in them."""
        return {"documents": self.contamination.documents, "contamination": self.contamination}

    def phases(self) -> list[Phase]:
        """A task for each shard."""
        return [Phase("list", sidecar.plan, self.work, sidecar.memory)]

    def work(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        """List the items in the contaminated documents of a shard."""
        import pyarrow.parquet as pq

        first = int(ctx.input("documents").row_offsets[spec["shard"]])
        documents = 0
        with ctx.shard() as out, pq.ParquetWriter(out.path, SCHEMA, compression=sidecar.COMPRESSION) as writer:
            rows = sidecar.aligned_rows(ctx, ("contamination",), spec["shard"], COLUMNS, BATCH_BYTES)
            for batch, beside in rows:
                found = beside["contamination"]
                removed = np.flatnonzero(whole_or_much(found, self.config) | same_shape(found, self.config))
                if len(removed):
                    table = self._listed(batch.take(pa.array(removed)), first + removed)
                    writer.write_table(table)
                    out.rows += table.num_rows
                    documents += len(removed)
                first += batch.num_rows
                ctx.progress(batch.num_rows, batch.column("text").nbytes)
            count = out.rows
        return {"documents": documents, "hits": count}

    def _listed(self, batch: pa.RecordBatch, rows: np.ndarray) -> pa.Table:
        """The items in some documents, given with their numbers."""
        shapes = self.config.shapes.overlap if self.config.shapes is not None else 1.0
        told = [
            {**about, "row": int(rows[document])}
            for document, about in every_hit(batch, self.contamination.index, self.config.overlap, shapes)
        ]
        return pa.Table.from_pylist(told, schema=SCHEMA)

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """Count them."""
        results = ctx.results("list")
        total = {name: sum(result[name] for result in results) for name in ("documents", "hits")}
        return {"counts": total, "schema": {field.name: str(field.type) for field in SCHEMA}}


def every_hit(
    batch: pa.RecordBatch, index: Index, overlap: float, shape_overlap: float
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The items in documents: the document's number in the batch, and a row of :data:`SCHEMA` without its ``row``.

    Args:
        batch: documents with the columns of :data:`COLUMNS`.
        index: the benchmarks.
        overlap: share of an item's n-grams from which on it is told.
        shape_overlap: share of a program's shape.
    """
    from headrace.documents.store import text_buffers
    from headrace.select.contamination.matching import match_every

    data, offsets = text_buffers(batch.column("text"))
    found = match_every(data, offsets, index, overlap, shape_overlap)
    there = np.ones(len(found.document), dtype=bool)
    starts, ends = (characters(data, offsets[found.document], places, there) for places in (found.start, found.stop))
    programs = [text for item in index.items for text in item.programs.values()]
    for k, document in enumerate(found.document.tolist()):
        start, end = int(starts[k]), int(ends[k])
        item = index.items[found.item[k]]
        pattern, program = int(found.pattern[k]), int(found.shape[k])
        field = index.pattern_fields[pattern] if pattern >= 0 else None
        if field is not None:
            text = index.pattern_texts[pattern]
        else:
            text = programs[program] if program >= 0 else "\n".join(item.fields.values())
        low = max(0, start - BEFORE)
        about = {name: batch.column(name)[document].as_py() for name in COLUMNS}
        yield (
            document,
            {
                **{name: about[name] for name in COLUMNS if name != "text"},
                "item": item.name,
                "method": "substring" if field is not None else "shape" if program >= 0 else "ngram",
                "field": field,
                "overlap": int(found.matched[k]) / max(1, int(found.size[k])),
                "matched": int(found.matched[k]),
                "ngrams": int(found.size[k]),
                "start": start,
                "end": end,
                "context": about["text"][low : low + CONTEXT],
                "context_start": low,
                "text": text[:ITEM],
            },
        )
