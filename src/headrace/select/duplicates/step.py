"""Duplicates: which documents are copies of each other, exactly or nearly, within and across all sources.

    partition   map     each document's band fingerprints and content id, to the partition of their high bits
    edges       reduce  documents that agree in a band: an edge from each to the smallest row in its bucket; most agree
                        with none and are filtered out (:mod:`headrace.select.duplicates.repeats`) before the sort
    exact       reduce  the same for equal content ids
    components  fold    union-find over all edges, or star contraction; the label is the smallest row
    publish     map     the sidecar, aligned with the documents; for each shard of reference documents a file of
                        those that share a component with documents of the corpus

Signatures were computed before (:mod:`headrace.select.duplicates.signatures`), so these global phases read no text.
Nothing is decided here: :mod:`headrace.select.verdicts` decides which document is kept. No phase holds an object per
document, or more than its budget: the fold works on two mapped files with one row number per document if the budget
holds them, and otherwise by sorting edges on disk (:mod:`headrace.select.duplicates.labels`).

A document whose cleaned text is empty has no shingles: it can be an exact duplicate, never a near one. One with fewer
units than a shingle is a single shingle, its whole cleaned text. ``signature: datasketch`` does as SlimPajama did:
neither has a shingle, and all of them are candidates of each other.

Reference documents (:mod:`headrace.select.duplicates.reference`) are numbered after the corpus, each set by the rows of
its documents, and take part in buckets like any document, except that buckets without corpus documents are dropped. So
the smallest row of a component always belongs to the corpus.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.flow.step import Phase, Step
from headrace.flow.task import TaskContext
from headrace.select import sidecar
from headrace.select.duplicates.reference import Reference, rows_of
from headrace.select.duplicates.signatures import Signatures, Signed

if TYPE_CHECKING:
    from headrace.recipe.schema import Recipe

SCHEMA = pa.schema(
    [
        ("component", pa.uint64()),  # smallest row of the component; null if the document has no duplicates
        (
            "exact_of",
            pa.uint64(),
        ),  # smallest row with the same content id; null if that is this row, or if exact is off
        ("size", pa.uint64()),  # documents in the component, at least 1
        ("bytes", pa.int64()),  # UTF-8 bytes of the document's text
    ]
)

REFERENCE = pa.schema(
    [
        ("row", pa.uint64()),  # the reference document's number, after the corpus
        ("component", pa.uint64()),
        ("exact_of", pa.uint64()),  # smallest row with the same content id
        ("size", pa.uint64()),
        ("bytes", pa.int64()),
        ("high", pa.uint64()),  # the content id
        ("low", pa.uint64()),
    ]
)
"""A reference document that shares a component with documents of the corpus."""

BAND = np.dtype([("fingerprint", "<u8"), ("row", "<u8")])
ID = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<u8")])
"""The form in which they are sorted; they travel with row numbers no wider than needed (:func:`narrow`)."""

# A partition of this size can be sorted in memory under the smallest budget that a worker is given.
PARTITION_BYTES = 64 << 20

# With more partitions than this, map tasks write slices too small to read well; larger partitions are sorted on disk.
MOST_PARTITIONS = 2048

# Edges read at a time by the fold.
EDGE_CHUNK = 1 << 18

ROW_GROUP = 1 << 16

_NONE = np.empty(0, dtype=np.int64)


def files_of(references: tuple[Reference, ...]) -> dict[str, Step]:
    """The steps that read reference documents from files, by role."""
    return {
        f"reference-documents-{k}": step.documents for k, step in enumerate(references) if step.documents is not None
    }


def reference_file(reference: int, shard: int) -> str:
    """The file for a shard of reference documents, with :data:`REFERENCE`."""
    return f"references/{reference}-{shard:05d}.parquet"


def narrow(dtype: np.dtype, rows: int) -> np.dtype:
    """:data:`BAND` or :data:`ID` with the narrowest row numbers for this many documents."""
    from headrace.select.duplicates.components import row_dtype

    return np.dtype([*((name, "<u8") for name in dtype.names or () if name != "row"), ("row", row_dtype(rows))])


def partitions(records: int, dtype: np.dtype) -> int:
    """How many partitions hold records of a dtype in ``PARTITION_BYTES`` each: a power of two, from content only."""
    return min(MOST_PARTITIONS, 1 << max(0, (records * dtype.itemsize - 1) // PARTITION_BYTES).bit_length())


def high_bits(keys: npt.NDArray[np.uint64], count: int) -> npt.NDArray[np.int64]:
    """The partition of each key: its high bits. ``count`` is a power of two, at most 2**32."""
    return (((keys >> np.uint64(32)) * np.uint64(count)) >> np.uint64(32)).astype(np.int64)


# Memory for the fold besides its two arrays; taking the whole budget would keep other tasks from running.
MORE = 64 << 20


def _components_memory(spec: dict[str, Any]) -> int:
    """The memory that union-find can use."""
    return int(spec["arrays"]) + MORE


@dataclass(frozen=True)
class Duplicates(Step):
    """The sidecar of duplicates.

    Attributes:
        signatures: the Signatures step, with or without bands.
        exact: whether to find equal content ids.
        references: sets of reference documents.
    """

    signatures: Signatures
    exact: bool
    references: tuple[Reference, ...] = ()

    kind: ClassVar[str] = "duplicates"
    VERSION: ClassVar[int] = 3

    @staticmethod
    def of(recipe: Recipe, documents: Step, references: tuple[Reference, ...] = ()) -> Duplicates:
        """Create the step for a recipe, including what its check of held-out documents needs."""
        from headrace.recipe.schema import Near

        wanted, check = recipe.deduplicate, recipe.split.check
        near = wanted.near if wanted is not None else None
        if near is None and check == "near":
            near = Near()
        exact = check is not None or (wanted is not None and wanted.exact)
        return Duplicates(Signatures(documents, near), exact, references)

    def params(self) -> dict[str, Any]:
        """Whether exact copies are found, and the signatures' shape."""
        return {"exact": self.exact, **self.signatures.params()}

    def inputs(self) -> dict[str, Step]:
        """The documents and their signatures, and those of reference documents if they are read from files."""
        references = {f"reference-{k}": step for k, step in enumerate(self.references)}
        return {
            "documents": self.signatures.documents,
            "signatures": self.signatures,
            **references,
            **files_of(self.references),
        }

    def phases(self) -> list[Phase]:
        """Partition, edges, exact, components, publish."""
        return [
            Phase("partition", self._plan_shards, self._partition),
            Phase("edges", self._plan_edges, self._edges),
            Phase("exact", self._plan_exact, self._exact),
            Phase("components", self._plan_components, self._components, most=_components_memory),
            Phase("publish", self._plan_shards, self._publish),
        ]

    # Numbering.

    def firsts(self, ctx: TaskContext) -> list[int]:
        """The number of the first document of the corpus and of each set of references, then the total."""
        sizes = [ctx.input("documents").rows]
        sizes += [step.opened(ctx, f"reference-documents-{k}").rows for k, step in enumerate(self.references)]
        return np.cumsum([0, *sizes]).tolist()

    def _rows(self, ctx: TaskContext) -> int:
        return self.firsts(ctx)[-1]

    def _plan_shards(self, ctx: TaskContext) -> list[dict[str, Any]]:
        """One task per shard of the corpus, then of each set of references."""
        firsts, specs = self.firsts(ctx), list[dict[str, Any]]()
        for k in range(-1, len(self.references)):
            documents = ctx.input("documents")
            if k >= 0:
                documents = self.references[k].opened(ctx, f"reference-documents-{k}")
            first = firsts[k + 1] + documents.row_offsets
            specs += [
                {"reference": k, "shard": shard, "rows": [int(first[shard]), int(first[shard + 1])]}
                for shard in range(len(documents.shards))
            ]
        return [{**spec, "size": spec["rows"][1] - spec["rows"][0]} for spec in specs]

    def _signed(self, ctx: TaskContext, spec: dict[str, Any]) -> Iterator[tuple[Signed, npt.NDArray[np.int64]]]:
        """The signatures of a shard of :meth:`_plan_shards`, with the numbers of its documents."""
        from headrace.select.duplicates.signatures import read

        row = spec["rows"][0]
        if spec["reference"] >= 0:
            reference = ctx.input(f"reference-{spec['reference']}")
            pieces = zip(read(reference, spec["shard"]), rows_of(reference, spec["shard"]), strict=True)
            yield from ((signed, row + rows) for signed, rows in pieces)
            return
        for signed in read(ctx.input("signatures"), spec["shard"]):
            yield signed, np.arange(row, row + len(signed.high))
            row += len(signed.high)

    # Phase "partition".

    def _band_partitions(self, ctx: TaskContext) -> int:
        rows = self._rows(ctx)
        bands = self.signatures.bands()[0]
        return partitions(rows * bands, narrow(BAND, rows)) if bands else 0

    def _id_partitions(self, ctx: TaskContext) -> int:
        rows = self._rows(ctx)
        return partitions(rows, narrow(ID, rows)) if self.exact else 0

    def _partition(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        from headrace.flow.exchange import Spill

        rows = self._rows(ctx)
        with (
            Spill(ctx, "bands", narrow(BAND, rows), max(1, self._band_partitions(ctx))) as bands,
            Spill(ctx, "ids", narrow(ID, rows), max(1, self._id_partitions(ctx))) as ids,
        ):
            for signed, numbers in self._signed(ctx, spec):
                found = np.empty(signed.fingerprints.size, dtype=bands.dtype)
                found["fingerprint"] = signed.fingerprints.ravel()
                found["row"] = np.repeat(numbers[signed.which], signed.fingerprints.shape[1])
                bands.add(high_bits(found["fingerprint"], bands.partitions), found)
                if self.exact:
                    records = np.empty(len(signed.high), dtype=ids.dtype)
                    records["high"], records["low"], records["row"] = signed.high, signed.low, numbers
                    ids.add(high_bits(records["high"], ids.partitions), records)
                ctx.progress(len(signed.high))
        return {}

    # Phases "edges" and "exact".

    def _plan_edges(self, ctx: TaskContext) -> list[dict[str, Any]]:
        return [{"partition": p} for p in range(self._band_partitions(ctx))]

    def _plan_exact(self, ctx: TaskContext) -> list[dict[str, Any]]:
        return [{"partition": p} for p in range(self._id_partitions(ctx))]

    def _edges(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        return self._stars(ctx, "bands", BAND, spec["partition"], ("fingerprint", "fingerprint"))

    def _exact(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        return self._stars(ctx, "ids", ID, spec["partition"], ("high", "low"))

    def _stars(
        self, ctx: TaskContext, name: str, dtype: np.dtype, partition: int, key: tuple[str, str]
    ) -> dict[str, Any]:
        """Write the star edges of one partition as pairs (smallest row, member).

        Records come in ascending order of row, and the sort is stable, so the first in a bucket is its smallest row.
        """
        from headrace.flow.external_sort import ExternalSort
        from headrace.select.duplicates.components import row_dtype, star_edges
        from headrace.select.duplicates.repeats import repeated

        rows, own = self._rows(ctx), np.uint64(ctx.input("documents").rows)
        sort = ExternalSort(ctx.folder / "scratch" / ctx.phase, dtype, tuple(dict.fromkeys(key)), ctx.memory)
        for records in repeated(ctx, name, partition, narrow(dtype, rows)):
            sort.add(records.astype(dtype))
        state = np.zeros(4, dtype=np.uint64)
        count = 0
        with ctx.intermediate(f"{partition:05d}.pairs") as out, open(out.path, "wb") as f:
            for records in sort.chunks():
                edges = np.empty((len(records), 2), dtype=row_dtype(rows))
                found = star_edges(records[key[0]], records[key[1]], records["row"], own, state, edges)
                edges[:found].tofile(f)
                count += found
                ctx.progress(len(records))
        return {"edges": count}

    def _read_edges(self, ctx: TaskContext, phase: str) -> Iterator[npt.NDArray[np.unsignedinteger]]:
        """The edges of all partitions of a phase, in order: unsigned[n, 2]."""
        from headrace.select.duplicates.components import row_dtype

        dtype = row_dtype(self._rows(ctx))
        for task in range(ctx.tasks(phase)):
            with open(ctx.scratch(phase, f"{task:05d}.pairs"), "rb") as f:
                while len(edges := np.fromfile(f, dtype=dtype, count=2 * EDGE_CHUNK)):
                    yield edges.reshape(-1, 2)

    # Phase "components".

    def _plan_components(self, ctx: TaskContext) -> list[dict[str, Any]]:
        from headrace.select.duplicates.labels import needed

        return [{"arrays": needed(self._rows(ctx))}]

    def _components(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        from headrace.select.duplicates.labels import label

        near, exact = (lambda: self._read_edges(ctx, "edges")), (lambda: self._read_edges(ctx, "exact"))
        return label(ctx, self._rows(ctx), near, exact)

    # Phase "publish".

    def _publish(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        import pyarrow.parquet as pq

        start, stop = spec["rows"]
        component, size, first = (self._found(ctx, name, start, stop) for name in ("labels", "sizes", "exact"))
        if spec["reference"] >= 0:
            return self._publish_references(ctx, spec, component, size, first)
        lengths = np.concatenate([_NONE, *(signed.bytes for signed, _ in self._signed(ctx, spec))])
        table = pa.table(
            [
                pa.array(component, mask=size == 1),
                pa.array(first, mask=first == np.arange(start, stop, dtype=np.uint64)),
                pa.array(size),
                pa.array(lengths),
            ],
            schema=SCHEMA,
        )
        with ctx.shard() as out:
            pq.write_table(table, out.path, compression=sidecar.COMPRESSION, row_group_size=ROW_GROUP)
            out.rows = table.num_rows
        exact_copies = len(table) - table.column("exact_of").null_count
        return {"documents": len(table), "exact": exact_copies, "bytes": int(lengths[size > 1].sum())}

    def _found(self, ctx: TaskContext, name: str, start: int, stop: int) -> npt.NDArray[np.uint64]:
        from headrace.select.duplicates.components import row_dtype

        dtype = row_dtype(self._rows(ctx))
        path = ctx.scratch("components", f"{name}.bin")
        return np.fromfile(path, dtype, stop - start, offset=start * dtype.itemsize).astype(np.uint64)

    def _publish_references(
        self,
        ctx: TaskContext,
        spec: dict[str, Any],
        component: npt.NDArray[np.uint64],
        size: npt.NDArray[np.uint64],
        first: npt.NDArray[np.uint64],
    ) -> dict[str, Any]:
        import pyarrow.parquet as pq

        count = 0
        with (
            ctx.file(reference_file(spec["reference"], spec["shard"])) as out,
            pq.ParquetWriter(out.path, REFERENCE, compression=sidecar.COMPRESSION) as writer,
        ):
            for signed, numbers in self._signed(ctx, spec):
                at = numbers - spec["rows"][0]
                mine = np.flatnonzero(size[at] > 1)
                at = at[mine]
                found = [numbers[mine].astype(np.uint64), component[at], first[at], size[at]]
                found += [signed.bytes[mine], signed.high[mine], signed.low[mine]]
                writer.write_table(pa.table(found, schema=REFERENCE))
                count += int(signed.bytes[mine].sum())
        return {"documents": 0, "exact": 0, "bytes": count}

    # Finish.

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """Check the number of rows, and count what was found.

        Raises:
            ConservationError: a document has no row.
        """
        published = ctx.results("publish")
        rows = sum(result["documents"] for result in published)
        sidecar.check_rows(ctx, rows)
        found = ctx.results("components")[0]
        counts = {
            "documents": rows,
            "candidate_pairs": sum(result["edges"] for result in ctx.results("edges")),
            "exact_copies": sum(result["exact"] for result in published),
            "components": found["components"],
            "members": found["members"],
            "largest": found["largest"],
            "member_bytes": sum(result["bytes"] for result in published),
        }
        value: dict[str, Any] = {"counts": counts, "schema": {field.name: str(field.type) for field in SCHEMA}}
        if self.signatures.near is not None:
            from headrace.select.duplicates.bands import curve

            value["candidate_probability"] = curve(*self.signatures.bands())
        return value
