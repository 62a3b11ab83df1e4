"""Duplicates: which documents are copies of each other, exactly or nearly, within and between all sources.

    signatures  map     each document's band fingerprints, and its content id, to the partition of their high bits
    edges       reduce  documents that agree in a band: an edge from each to the smallest row of its bucket; most agree
                        with none and are filtered out (:mod:`headrace.select.duplicates.repeats`) before the sort
    exact       reduce  the same for equal content ids
    components  fold    union-find over all edges, or star contraction; the label is the smallest row
    publish     map     the sidecar, row by row beside the documents

Nothing is decided here: :mod:`headrace.select.verdicts` elects the document to keep. No phase holds an object a
document, or more than its budget: the fold works over two mapped files of a row number a document while the budget
holds them, and by sorting edges on disk beyond (:mod:`headrace.select.duplicates.labels`).

A document whose cleaned text is empty has no shingles: it can be an exact duplicate, never a near one. One of fewer
units than a shingle is a single shingle, its whole cleaned text. With ``signature: datasketch`` it is as SlimPajama has
it: neither has a shingle, and all of them are candidates of each other.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.errors import UserError
from headrace.flow.step import Phase, Step
from headrace.flow.task import TaskContext
from headrace.select import sidecar

if TYPE_CHECKING:
    from headrace.flow.exchange import Spill
    from headrace.recipe.schema import Near, Recipe

SCHEMA = pa.schema(
    [
        ("component", pa.uint64()),  # smallest row of the component; null if the document has no duplicate
        ("exact_of", pa.uint64()),  # smallest row of the same content id; null if that is this row, or exact is off
        ("size", pa.uint64()),  # documents in the component, at least 1
        ("bytes", pa.int64()),  # UTF-8 bytes of the document's text
    ]
)

BAND = np.dtype([("fingerprint", "<u8"), ("row", "<u8")])
ID = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<u8")])
"""As they are sorted; they travel with rows no wider than need be (:func:`narrow`)."""

# A partition of this size is sorted in memory under the smallest budgets that a worker is given.
PARTITION_BYTES = 64 << 20

# Beyond this many the slices that a map task writes get too small to read well; larger partitions are sorted on disk.
MOST_PARTITIONS = 2048

# Text cleaned at a time: code points are four times as long, and 1 MB of them stays in the second-level cache (513 MB/s
# cleaned against 372 by batches of 1 MB).
BATCH_BYTES = 1 << 18

# A partition of at most this share of the budget is held between its two passes; a larger one is read twice.
HELD_SHARE = 0.2

# Edges that the fold reads at a time.
EDGE_CHUNK = 1 << 18

ROW_GROUP = 1 << 16


def narrow(dtype: np.dtype, rows: int) -> np.dtype:
    """:data:`BAND` or :data:`ID` with the narrowest row numbers for so many documents."""
    from headrace.select.duplicates.components import row_dtype

    return np.dtype([*((name, "<u8") for name in dtype.names or () if name != "row"), ("row", row_dtype(rows))])


def partitions(records: int, dtype: np.dtype) -> int:
    """How many partitions hold records of a dtype in ``PARTITION_BYTES`` each: a power of two, from content only."""
    return min(MOST_PARTITIONS, 1 << max(0, (records * dtype.itemsize - 1) // PARTITION_BYTES).bit_length())


def high_bits(keys: npt.NDArray[np.uint64], count: int) -> npt.NDArray[np.int64]:
    """The partition of each key: its high bits. ``count`` is a power of two, at most 2**32."""
    return (((keys >> np.uint64(32)) * np.uint64(count)) >> np.uint64(32)).astype(np.int64)


@dataclass(frozen=True)
class Duplicates(Step):
    """The sidecar of duplicates.

    Attributes:
        documents: the step that makes the documents.
        near: how near-duplicates are found; None to leave them.
        exact: whether equal content ids are found.

    Raises:
        UserError: the signature is longer than the sketch supports.
    """

    documents: Step
    near: Near | None
    exact: bool

    kind: ClassVar[str] = "duplicates"
    VERSION: ClassVar[int] = 2

    def __post_init__(self) -> None:
        most = 1 << 15  # minhash.MOST_VALUES, which cannot be imported without compiling kernels
        if self.near is not None and self.near.values > most:
            raise UserError(
                f"A signature of {self.near.values} values is too long.",
                "deduplicate.near.values",
                f"Use at most {most}; 128 is usual.",
            )

    @staticmethod
    def of(recipe: Recipe, documents: Step) -> Duplicates:
        """The step for a recipe: what it deduplicates, and what its check of held-out documents needs to know."""
        from headrace.recipe.schema import Near

        wanted, check = recipe.deduplicate, recipe.split.check
        near = wanted.near if wanted is not None else None
        if near is None and check == "near":
            near = Near()
        return Duplicates(documents, near, check is not None or (wanted is not None and wanted.exact))

    def bands(self) -> tuple[int, int]:
        """The (bands, rows) of near-duplicates: those stated, or the best for the threshold; (0, 0) if off."""
        if self.near is None:
            return 0, 0
        from headrace.select.duplicates.fingerprints import bands_of

        return bands_of(self.near)

    def params(self) -> dict[str, Any]:
        """The signature's shape and the tables of Unicode; the threshold only through the bands that it gives."""
        near = None
        if self.near is not None:
            bands, rows = self.bands()
            shape = {"unit": self.near.unit, "ngram": self.near.ngram, "values": self.near.values}
            near = {**shape, "bands": bands, "rows": rows, "unicode": unicodedata.unidata_version}
            if self.near.signature != "fast":
                near["signature"] = self.near.signature
        return {"exact": self.exact, "near": near}

    def inputs(self) -> dict[str, Step]:
        """The documents."""
        return {"documents": self.documents}

    def phases(self) -> list[Phase]:
        """Signatures, edges, exact, components, publish."""
        return [
            Phase("signatures", sidecar.plan, self._signatures, _signature_memory),
            Phase("edges", self._plan_edges, self._edges),
            Phase("exact", self._plan_exact, self._exact),
            Phase("components", lambda ctx: [{}], self._components),
            Phase("publish", sidecar.plan, self._publish),
        ]

    # Phase "signatures".

    def _band_partitions(self, ctx: TaskContext) -> int:
        rows = ctx.input("documents").rows
        return partitions(rows * self.bands()[0], narrow(BAND, rows)) if self.near else 0

    def _id_partitions(self, ctx: TaskContext) -> int:
        rows = ctx.input("documents").rows
        return partitions(rows, narrow(ID, rows)) if self.exact else 0

    def _spills(self, ctx: TaskContext) -> tuple[Spill, Spill]:
        """Where a map task sends the band fingerprints and the content ids of its documents."""
        from headrace.flow.exchange import Spill

        rows = ctx.input("documents").rows
        return (
            Spill(ctx, "bands", narrow(BAND, rows), max(1, self._band_partitions(ctx))),
            Spill(ctx, "ids", narrow(ID, rows), max(1, self._id_partitions(ctx))),
        )

    def _signatures(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        from headrace.documents.store import read_batches, text_buffers
        from headrace.flow.keys import parse_ids

        documents = ctx.input("documents")
        row = int(documents.row_offsets[spec["shard"]])
        sizes = []
        to_bands, to_ids = self._spills(ctx)
        with to_bands as bands, to_ids as ids:
            for batch in _batches(ctx, read_batches(documents.shard_path(spec["shard"]), ["id", "text"], BATCH_BYTES)):
                ctx.at(f"document rows {row} to {row + batch.num_rows - 1}")
                data, offsets = text_buffers(batch.column("text"))
                rows = np.arange(row, row + batch.num_rows, dtype=np.uint64)
                if self.near is not None:
                    found = self._band_records(data, offsets, rows, bands.dtype)
                    bands.add(high_bits(found["fingerprint"], bands.partitions), found)
                if self.exact:
                    records = np.empty(batch.num_rows, dtype=ids.dtype)
                    halves = parse_ids(batch.column("id"))
                    records["high"], records["low"], records["row"] = halves[:, 0], halves[:, 1], rows
                    ids.add(high_bits(records["high"], ids.partitions), records)
                sizes.append(np.diff(offsets))
                row += batch.num_rows
                ctx.progress(batch.num_rows, len(data))
        with ctx.intermediate(f"bytes-{ctx.task:05d}.npy") as out, open(out.path, "wb") as f:
            np.save(f, np.concatenate([*sizes, np.empty(0, dtype=np.int64)]))
        return {"documents": sum(map(len, sizes))}

    def _band_records(
        self,
        data: npt.NDArray[np.uint8],
        offsets: npt.NDArray[np.int64],
        rows: npt.NDArray[np.uint64],
        dtype: np.dtype,
    ) -> npt.NDArray[np.void]:
        from headrace.select.duplicates.fingerprints import fingerprints

        assert self.near is not None
        which, found = fingerprints(self.near, data, offsets)
        records = np.empty(found.size, dtype=dtype)
        records["fingerprint"] = found.ravel()
        records["row"] = np.repeat(rows[which], found.shape[1])
        return records

    # Phases "edges" and "exact".

    def _plan_edges(self, ctx: TaskContext) -> list[dict[str, Any]]:
        return [{"partition": p} for p in range(self._band_partitions(ctx))]

    def _plan_exact(self, ctx: TaskContext) -> list[dict[str, Any]]:
        return [{"partition": p} for p in range(self._id_partitions(ctx))]

    def _edges(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        return _stars(ctx, "bands", BAND, spec["partition"], ("fingerprint", "fingerprint"))

    def _exact(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        return _stars(ctx, "ids", ID, spec["partition"], ("high", "low"))

    # Phase "components".

    def _components(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        from headrace.select.duplicates.labels import label

        rows = ctx.input("documents").rows
        return label(ctx, rows, lambda: _read_edges(ctx, "edges"), lambda: _read_edges(ctx, "exact"))

    # Phase "publish".

    def _publish(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        import pyarrow.parquet as pq

        from headrace.select.duplicates.components import row_dtype

        documents = ctx.input("documents")
        start, stop = documents.row_offsets[spec["shard"] : spec["shard"] + 2].tolist()
        dtype = row_dtype(documents.rows)

        def found(name: str) -> npt.NDArray[np.uint64]:
            path = ctx.scratch("components", f"{name}.bin")
            return np.fromfile(path, dtype, stop - start, offset=start * dtype.itemsize).astype(np.uint64)

        component, size, first = found("labels"), found("sizes"), found("exact")
        lengths = np.load(ctx.scratch("signatures", f"bytes-{spec['shard']:05d}.npy"))
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

    # The end.

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """Count what was found.

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
        if self.near is not None:
            from headrace.select.duplicates.bands import curve

            value["candidate_probability"] = curve(*self.bands())
        return value


def _signature_memory(spec: dict[str, Any]) -> int:
    """A row group as it is read and decoded, and code points of four bytes for its largest document."""
    return (24 << 20) + 6 * int(spec["bytes"])


def _batches(ctx: TaskContext, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches; one document at a time if a worker died here."""
    for batch in batches:
        if ctx.careful:
            yield from (batch.slice(row, 1) for row in range(batch.num_rows))
        else:
            yield batch


def _stars(ctx: TaskContext, name: str, dtype: np.dtype, partition: int, key: tuple[str, str]) -> dict[str, Any]:
    """Write the star edges of one partition as pairs (smallest row, member) of row numbers.

    Records come in ascending order of row, and the sort is stable, so the first of a bucket is its smallest row.
    """
    from headrace.flow.external_sort import ExternalSort
    from headrace.select.duplicates.components import row_dtype, star_edges

    rows = ctx.input("documents").rows
    sort = ExternalSort(ctx.folder / "scratch" / ctx.phase, dtype, tuple(dict.fromkeys(key)), ctx.memory)
    for records in _repeated(ctx, name, partition, narrow(dtype, rows)):
        sort.add(records.astype(dtype))
    state = np.zeros(4, dtype=np.uint64)
    count = 0
    with ctx.intermediate(f"{partition:05d}.pairs") as out, open(out.path, "wb") as f:
        for records in sort.chunks():
            edges = np.empty((len(records), 2), dtype=row_dtype(rows))
            found = star_edges(records[key[0]], records[key[1]], records["row"], state, edges)
            edges[:found].tofile(f)
            count += found
            ctx.progress(len(records))
    return {"edges": count}


def _repeated(ctx: TaskContext, name: str, partition: int, dtype: np.dtype) -> Iterator[npt.NDArray[np.void]]:
    """The records of a partition, in their order, whose key may be that of another record; all such are there."""
    from headrace.flow.exchange import partition_size, read_partition
    from headrace.select.duplicates.repeats import Repeats

    count = partition_size(ctx, "signatures", name, partition)
    repeats = Repeats(count, ctx.memory // 8)
    held: list[npt.NDArray[np.void]] = []
    small = count * dtype.itemsize <= ctx.memory * HELD_SHARE
    for records, _ in read_partition(ctx, "signatures", name, partition, dtype):
        repeats.see(records)
        if small:
            held.append(records)
    while held:
        yield repeats.pick(held.pop(0))
    if not small:
        for records, _ in read_partition(ctx, "signatures", name, partition, dtype):
            yield repeats.pick(records)


def _read_edges(ctx: TaskContext, phase: str) -> Iterator[npt.NDArray[np.unsignedinteger]]:
    """The edges of all partitions of a phase, in order: unsigned[n, 2]."""
    from headrace.select.duplicates.components import row_dtype

    dtype = row_dtype(ctx.input("documents").rows)
    for task in range(ctx.tasks(phase)):
        with open(ctx.scratch(phase, f"{task:05d}.pairs"), "rb") as f:
            while len(edges := np.fromfile(f, dtype=dtype, count=2 * EDGE_CHUNK)):
                yield edges.reshape(-1, 2)
