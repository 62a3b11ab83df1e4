"""Signatures, by which documents are compared: a sidecar that stays valid when other documents are added or removed.

A shard is an uncompressed, memory-mapped Arrow IPC file: one row per document with its content id, text size and band
fingerprints. Which documents are alike depends on all of them together: see :mod:`headrace.select.duplicates.step`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.errors import UserError
from headrace.flow.artifact import Artifact
from headrace.flow.step import Phase, Step
from headrace.flow.task import TaskContext
from headrace.select import sidecar

if TYPE_CHECKING:
    from headrace.recipe.schema import Near

# Text cleaned at a time: code points are four times as large, and 1 MB of them stays in the L2 cache (513 MB/s of
# cleaned text, versus 372 with batches of 1 MB).
BATCH_BYTES = 1 << 18

# Rows per record batch: 6 MB with 9 bands.
ROW_GROUP = 1 << 16

MOST_VALUES = 1 << 15  # equals minhash.MOST_VALUES, which cannot be imported without compiling kernels


class Signed(NamedTuple):
    """The signatures of some documents, as views of the mapped file.

    Attributes:
        high, low: uint64[n], the halves of the content ids.
        bytes: int64[n], the UTF-8 length of each text.
        which: int64[m], positions of the documents that have fingerprints.
        fingerprints: uint64[m, bands].
    """

    high: npt.NDArray[np.uint64]
    low: npt.NDArray[np.uint64]
    bytes: npt.NDArray[np.int64]
    which: npt.NDArray[np.int64]
    fingerprints: npt.NDArray[np.uint64]


def schema(bands: int) -> pa.Schema:
    """The columns; without bands (near-duplicates off) there are no fingerprints."""
    fields = [pa.field(name, kind, nullable=False) for name, kind in _COLUMNS.items()]
    if bands:
        item = pa.field("item", pa.uint64(), nullable=False)
        fields.append(pa.field("bands", pa.list_(item, bands)))  # null if a cleaned text is empty
    return pa.schema(fields)


_COLUMNS = {"high": pa.uint64(), "low": pa.uint64(), "bytes": pa.int64()}


def batch_of(signed: Signed, bands: int) -> pa.RecordBatch:
    """A record batch with :func:`schema`; equal signatures give equal bytes."""
    columns = [pa.array(signed.high), pa.array(signed.low), pa.array(signed.bytes)]
    if bands:
        has = np.zeros(len(signed.high), dtype=bool)
        has[signed.which] = True
        values = np.zeros((len(has), bands), dtype=np.uint64)
        values[signed.which] = signed.fingerprints
        mask = None if has.all() else pa.py_buffer(np.packbits(has, bitorder="little"))
        kind = schema(bands).field("bands").type
        columns.append(pa.Array.from_buffers(kind, len(has), [mask], children=[pa.array(values.ravel())]))
    return pa.RecordBatch.from_arrays(columns, schema=schema(bands))


def read(signatures: Artifact, shard: int) -> Iterator[Signed]:
    """The signatures of a shard's documents, in order, in pieces of at most :data:`ROW_GROUP`."""
    with pa.memory_map(str(signatures.shard_path(shard))) as source:
        file = pa.ipc.open_file(source)
        for number in range(file.num_record_batches):
            batch = file.get_batch(number)
            high, low, sizes = (batch.column(name).to_numpy(zero_copy_only=True) for name in _COLUMNS)
            which, found = np.empty(0, dtype=np.int64), np.empty((0, 0), dtype=np.uint64)
            if "bands" in batch.schema.names:
                lists = batch.column("bands")
                which = np.flatnonzero(lists.is_valid().to_numpy(zero_copy_only=False))
                found = lists.values.to_numpy(zero_copy_only=True).reshape(len(lists), lists.type.list_size)
                found = found if len(which) == len(lists) else found[which]
            yield Signed(high, low, sizes, which, found)


@dataclass(frozen=True)
class Signatures(Step):
    """The sidecar of signatures.

    Attributes:
        documents: the Documents step.
        near: how near-duplicates are found; None if they are off.

    Raises:
        UserError: the signature is longer than the sketch supports.
    """

    documents: Step
    near: Near | None

    kind: ClassVar[str] = "signatures"
    VERSION: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.near is not None and self.near.values > MOST_VALUES:
            raise UserError(
                f"A signature of {self.near.values} values is too long.",
                "deduplicate.near.values",
                f"Use at most {MOST_VALUES}; 128 is typical.",
            )

    def bands(self) -> tuple[int, int]:
        """The (bands, rows) of the signature: those in the recipe, or the best for the threshold; (0, 0) if off."""
        return bands(self.near)

    def params(self) -> dict[str, Any]:
        """The signature's shape."""
        return shape(self.near)

    def inputs(self) -> dict[str, Step]:
        """The documents."""
        return {"documents": self.documents}

    def phases(self) -> list[Phase]:
        """One map over the shards of documents."""
        return [Phase("sign", sidecar.plan_reusable, self.work, memory)]

    def work(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        """Sign the documents of one shard."""
        from headrace.documents.store import read_batches

        documents = ctx.input("documents")
        path, row = documents.shard_path(spec["shard"]), int(documents.row_offsets[spec["shard"]])

        def signed() -> Iterator[pa.RecordBatch]:
            nonlocal row
            for batch in carefully(ctx, read_batches(path, columns(self.near), BATCH_BYTES)):
                ctx.at(f"document rows {row} to {row + batch.num_rows - 1}")
                yield batch_of(found := sign(self.near, batch), self.bands()[0])
                row += batch.num_rows
                ctx.progress(batch.num_rows, int(found.bytes.sum()))

        return {"documents": write(ctx, schema(self.bands()[0]), signed())}

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """Check the number of rows.

        Raises:
            ConservationError: a document has no row.
        """
        rows = sum(result["documents"] for result in ctx.results("sign"))
        sidecar.check_rows(ctx, rows)
        told = {field.name: str(field.type) for field in schema(self.bands()[0])}
        return {"counts": {"documents": rows}, "schema": told}


def bands(near: Near | None) -> tuple[int, int]:
    """The (bands, rows) of the signature: those in the recipe, or the best for the threshold; (0, 0) if off."""
    if near is None:
        return 0, 0
    from headrace.select.duplicates.fingerprints import bands_of

    return bands_of(near)


def shape(near: Near | None) -> dict[str, Any]:
    """The signature's shape and the Unicode tables; the threshold matters only through the bands it gives."""
    if near is None:
        return {"near": None}
    count, rows = bands(near)
    told: dict[str, Any] = {"unit": near.unit, "ngram": near.ngram, "values": near.values}
    told |= {"bands": count, "rows": rows, "unicode": unicodedata.unidata_version}
    return {"near": told if near.signature == "fast" else {**told, "signature": near.signature}}


def columns(near: Near | None) -> list[str]:
    """The document columns that :func:`sign` needs."""
    return ["id", "bytes", *(["text"] if near is not None else [])]


def sign(near: Near | None, batch: pa.RecordBatch) -> Signed:
    """Sign documents, given with those columns."""
    from headrace.documents.store import text_buffers
    from headrace.flow.keys import parse_ids

    halves = parse_ids(batch.column("id"))
    which, found = np.empty(0, dtype=np.int64), np.empty((0, 0), dtype=np.uint64)
    if near is not None:
        from headrace.select.duplicates.fingerprints import fingerprints

        which, found = fingerprints(near, *text_buffers(batch.column("text")))
    return Signed(halves[:, 0], halves[:, 1], batch.column("bytes").to_numpy(), which, found)


def write(ctx: TaskContext, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> int:
    """Write a shard whose bytes do not depend on the size of the batches; returns its number of rows."""
    held: list[pa.RecordBatch] = []
    with ctx.shard(".arrow") as out:
        with pa.OSFile(str(out.path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for batch in batches:
                held.append(batch)
                out.rows += batch.num_rows
                if sum(map(len, held)) >= ROW_GROUP:
                    held = _write_whole(writer, held)
            for left in _joined(held) if held else ():
                writer.write_batch(left)
        return out.rows


def memory(spec: dict[str, Any]) -> int:
    """A row group as read and decoded, plus four-byte code points for its largest document."""
    return (24 << 20) + 6 * int(spec["bytes"])


def carefully(ctx: TaskContext, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches; one document at a time if a worker died here."""
    for batch in batches:
        if ctx.careful:
            yield from (batch.slice(row, 1) for row in range(batch.num_rows))
        else:
            yield batch


def _write_whole(writer: pa.ipc.RecordBatchFileWriter, held: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Write batches of exactly :data:`ROW_GROUP` rows, whatever the sizes given; returns the rest."""
    *whole, last = _joined(held)
    for batch in whole:
        writer.write_batch(batch)
    if len(last) < ROW_GROUP:
        return [last]
    writer.write_batch(last)
    return []


def _joined(held: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    batches: list[pa.RecordBatch] = pa.Table.from_batches(held).combine_chunks().to_batches(max_chunksize=ROW_GROUP)
    return batches
