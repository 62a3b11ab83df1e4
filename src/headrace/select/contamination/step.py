"""Contamination: a sidecar of the benchmark item that each document contains, how much of it, and where.

The sidecar records the best match whatever its share; the recipe's limit is applied by the verdicts
(:func:`headrace.select.verdicts.document_filters.contaminated`), so changing it re-reads no text.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.flow.notices import Notice
from headrace.flow.step import Phase, Step
from headrace.flow.task import TaskContext
from headrace.recipe.schema import Recipe, Shapes
from headrace.select import code_points, sidecar
from headrace.select.contamination.benchmarks import BenchmarkFile, list_benchmarks, read_items
from headrace.select.contamination.index import Index, Substring, build
from headrace.select.contamination.shapes import ShapeTable

SCHEMA = pa.schema(
    [
        ("item", pa.string()),  # <benchmark>:<item's id>; null, like all other columns, if nothing was found
        ("method", pa.string()),  # substring or ngram
        ("field", pa.string()),  # the field found whole; null for ngram
        ("overlap", pa.float64()),  # the share of the item's n-grams that the document contains
        ("matched", pa.int64()),  # how many distinct n-grams that is
        ("ngrams", pa.int64()),  # how many distinct n-grams the item has
        ("start", pa.int64()),  # the evidence in the document's text: characters [start, end)
        ("end", pa.int64()),
    ]
)
SHAPES = pa.schema(
    [
        ("shape_item", pa.string()),  # the item whose program stands in the document under other names; or null
        ("shape_overlap", pa.float64()),  # the share of the program's n-grams of shapes in one stretch of the document
        ("shape_matched", pa.int64()),
        ("shape_ngrams", pa.int64()),
        ("shape_start", pa.int64()),  # the stretch: characters [start, end)
        ("shape_end", pa.int64()),
    ]
)


def schema_of(shapes: bool) -> pa.Schema:
    """The sidecar's columns: with those of shapes only if the recipe asks for them."""
    return pa.schema([*SCHEMA, *SHAPES]) if shapes else SCHEMA


def search(batch: pa.RecordBatch, index: Index) -> pa.Table:
    """Search documents for benchmark items.

    Args:
        batch: documents with the column ``text`` (large_string).
        index: the benchmarks.

    Returns:
        A table with :func:`schema_of`, one row per document.
    """
    from headrace.documents.store import text_buffers

    data, offsets = text_buffers(batch.column("text"))
    columns = _best(data, offsets, index)
    if index.shapes is not None:
        columns += _best_shapes(data, offsets, index, index.shapes)
    return pa.table(columns, schema=schema_of(index.shapes is not None))


def characters(
    data: npt.NDArray[np.uint8],
    base: npt.NDArray[np.int64],
    places: npt.NDArray[np.int64],
    there: npt.NDArray[np.bool_],
) -> npt.NDArray[np.int64]:
    """Places in documents, in characters.

    Args:
        data: the documents.
        base: for each place, the byte where its document starts.
        places: bytes from there.
        there: which are places; others become 0.
    """
    told = np.zeros(len(base), dtype=np.int64)
    for row in np.flatnonzero(there).tolist():
        start = int(base[row])
        told[row] = code_points.count_characters(data, start, start + int(places[row]))
    return told


def _best_shapes(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], index: Index, table: ShapeTable
) -> list[pa.Array]:
    from headrace.select.contamination.matching import match_shapes

    found = match_shapes(data, offsets, index, table)
    none = found.item < 0
    start, end = (characters(data, offsets[:-1], places, ~none) for places in (found.start, found.stop))
    names = [index.items[item].name if item >= 0 else None for item in found.item.tolist()]
    return [
        pa.array(names, pa.string()),
        pa.array(found.matched / np.maximum(found.size, 1), mask=none),
        *(pa.array(values, mask=none) for values in (found.matched, found.size, start, end)),
    ]


def _best(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], index: Index) -> list[pa.Array]:
    from headrace.select.contamination.matching import match

    found = match(data, offsets, index)
    none = found.item < 0
    sizes = index.sizes[found.item] if index.items else np.zeros(len(none), dtype=np.int64)
    start, end = (characters(data, offsets[:-1], places, ~none) for places in (found.start, found.stop))
    names = [index.items[item].name if item >= 0 else None for item in found.item.tolist()]
    fields = [index.pattern_fields[pattern] if pattern >= 0 else None for pattern in found.pattern.tolist()]
    methods = np.where(found.pattern >= 0, "substring", "ngram")
    return [
        pa.array(names, pa.string()),
        pa.array(methods, pa.string(), mask=none),
        pa.array(fields, pa.string()),
        pa.array(found.matched / np.maximum(sizes, 1), mask=none),
        *(pa.array(values, mask=none) for values in (found.matched, sizes, start, end)),
    ]


@dataclass(frozen=True)
class Contamination(Step):
    """A sidecar of benchmark matches, aligned with the documents.

    Attributes:
        documents: the Documents step.
        files: the benchmarks' files with their fingerprints.
        ngram: units in an n-gram.
        code: whether units are code tokens rather than words.
        substring: whether to search for whole texts too, and how.
        shapes: how to search for shapes of programs; None does not.
        normalise: how to normalize items: as the documents are.
    """

    documents: Step
    files: tuple[BenchmarkFile, ...]
    ngram: int
    code: bool
    substring: Substring
    normalise: str
    shapes: Shapes | None = None

    kind: ClassVar[str] = "contamination"
    VERSION: ClassVar[int] = 1

    @staticmethod
    def of(recipe: Recipe, documents: Step, files: tuple[BenchmarkFile, ...] | None = None) -> Contamination:
        """Create the step for a recipe with a ``decontaminate`` section.

        Args:
            recipe: the recipe, with absolute paths.
            documents: the Documents step.
            files: the benchmarks as the run found them; listed now without them.

        Raises:
            UserError: a benchmark file is missing or unreadable.
            ValueError: the recipe has no such section.
        """
        config = recipe.decontaminate
        if config is None:
            raise ValueError("the recipe has no section `decontaminate`")
        code = config.unit == "code"
        files = list_benchmarks(config) if files is None else files
        return Contamination(
            documents, files, config.ngram, code, config.substring, recipe.documents.normalise, config.shapes
        )

    def params(self) -> dict[str, Any]:
        """What is searched for: n-gram settings and digests of the benchmark files, but not the limit."""
        files = [file.params() for file in self.files]
        unit = "code" if self.code else "words"
        looked_for = {"ngram": self.ngram, "unit": unit, "substring": self.substring, "normalise": self.normalise}
        shapes = {"shapes": self.shapes.model_dump(mode="json", exclude={"overlap"})} if self.shapes else {}
        return {"benchmarks": files, **looked_for, **shapes, "unicode": code_points.UNICODE}

    def inputs(self) -> dict[str, Step]:
        """The documents."""
        return {"documents": self.documents}

    def phases(self) -> list[Phase]:
        """Read the benchmarks once, so that a bad file is reported before any work; then one map over the documents."""
        return [
            Phase("read", lambda ctx: [{}], self.read),
            Phase("search", sidecar.plan_reusable, self.work, sidecar.memory),
        ]

    @property
    def schema(self) -> pa.Schema:
        """The sidecar's columns."""
        return schema_of(self.shapes is not None)

    @cached_property
    def index(self) -> Index:
        """The benchmark index, built once per process.

        Raises:
            UserError: a benchmark file is invalid, or has changed.
        """
        return build(read_items(self.files, self.normalise), self.ngram, self.code, self.substring, self.shapes)

    def read(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        """Read the benchmarks, in a worker, because files can crash the process."""
        items = read_items(self.files, self.normalise, ctx.at)
        unread = [item for item in items if item.unread]
        if unread:
            told = f"benchmarks: some tests of {len(unread)} items were left out (such as {unread[0].name}: "
            warnings.warn(f"{told}{unread[0].unread})", Notice, stacklevel=1)
        return {"items": len(items)}

    def work(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        """Search one shard."""
        rows = sidecar.write(ctx, spec, ("text",), self.schema, lambda batch: search(batch, self.index))
        return {"documents": rows}

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """Check the number of rows.

        Raises:
            ConservationError: a document has no row.
        """
        rows = sum(result["documents"] for result in ctx.results("search"))
        sidecar.check_rows(ctx, rows)
        return {"counts": {"documents": rows}, "schema": {field.name: str(field.type) for field in self.schema}}
