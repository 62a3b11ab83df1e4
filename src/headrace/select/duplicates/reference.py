"""Reference documents: what this corpus is compared with, but which is not part of it.

They are the documents that a finished run kept, or are read from files like a source. Their signatures are an artifact
of this run, so the global phases of :mod:`headrace.select.duplicates.step` read only one kind of thing: one shard for
each shard of documents, with the row of each document that counts. Signatures of the earlier run are reused if they
have the same shape, which gives the same bytes as signing its texts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.errors import UserError
from headrace.flow.artifact import Artifact, ConservationError, Entry, Once
from headrace.flow.reuse import task_key
from headrace.flow.step import Phase, Step
from headrace.flow.task import TaskContext
from headrace.select import sidecar
from headrace.select.duplicates.signatures import (
    BATCH_BYTES,
    Signed,
    bands,
    batch_of,
    carefully,
    columns,
    memory,
    read,
    schema,
    shape,
    sign,
    write,
)

if TYPE_CHECKING:
    from headrace.recipe.schema import Near

ROW = pa.field("row", pa.uint64(), nullable=False)  # within the shard of documents


@dataclass(frozen=True)
class EarlierRun:
    """A finished earlier run.

    Attributes:
        path: its folder; never part of an identity.
        documents, verdicts: the identities of its artifacts.
        signatures: the identity of its signatures if they have the right shape, otherwise None.
        sources: the names of its sources.
    """

    path: str
    documents: str
    verdicts: str
    signatures: str | None
    sources: tuple[str, ...]

    def open(self, kind: str) -> Artifact:
        """Open one of the three artifacts; its files are compared with their digests before they are read.

        Raises:
            UserError: it is missing, different or damaged; a file may also turn out to be damaged later.
        """
        identity = getattr(self, kind)
        with self.reading():
            artifact = _opened(Path(self.path) / "artifacts" / f"{kind}-{identity[:8]}", identity)
        if artifact.manifest.identity != identity:
            raise UserError("An earlier run has changed since this one began.", self.path, "Run this recipe again.")
        once = Once()

        def check(artifact: Artifact, entry: Entry) -> None:
            with self.reading():
                once(artifact, entry)

        return replace(artifact, check=check)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Wraps reading from the run: errors name it, since this run cannot fix it.

        Raises:
            UserError: anything went wrong.
        """
        try:
            yield
        except UserError as error:
            raise _damaged(self, error.what, error.where) from None
        except (OSError, pa.ArrowException) as error:
            raise _damaged(self, f"{error}.", self.path) from None


@lru_cache(maxsize=64)
def _opened(folder: Path, identity: str) -> Artifact:
    """A worker reads a manifest once, however many tasks ask for it: an identity's manifest does not change."""
    return Artifact.open(folder)


def _damaged(run: EarlierRun, what: str, where: str) -> UserError:
    fix = f"Run its recipe again with --out {run.path} --verify, or take it out of deduplicate.against."
    return UserError(f"An earlier run that deduplicate.against names cannot be read: {what}", where, fix)


@dataclass(frozen=True)
class Reference(Step):
    """The signatures of reference documents.

    Attributes:
        near: how near-duplicates are found; None for exact copies only.
        documents: the step that reads them from files; None if they are from an earlier run.
        earlier: the earlier run; None if they are from files.
        sources: the names of the documents' sources.
        stage: where in ``deduplicate.against`` they are named.
    """

    near: Near | None
    documents: Step | None
    earlier: EarlierRun | None
    sources: tuple[str, ...]
    stage: str

    kind: ClassVar[str] = "reference-signatures"
    VERSION: ClassVar[int] = 2

    def params(self) -> dict[str, Any]:
        """The signature's shape, and the identity and selection of the documents."""
        run = self.earlier and {"documents": self.earlier.documents, "verdicts": self.earlier.verdicts}
        return {**shape(self.near), "run": run}

    def inputs(self) -> dict[str, Step]:
        """The documents, if they are read from files."""
        return {} if self.documents is None else {"documents": self.documents}

    def phases(self) -> list[Phase]:
        """One map over the shards of documents."""
        return [Phase("sign", self._plan, self._sign, memory)]

    def opened(self, ctx: TaskContext, role: str = "documents") -> Artifact:
        """Open the documents, in this run or the earlier one.

        Args:
            ctx: the context of a step that has them among its inputs.
            role: their role there.

        Raises:
            UserError: the earlier run is missing, different or damaged.
        """
        return self.earlier.open("documents") if self.earlier is not None else ctx.input(role)

    def groups(self, ctx: TaskContext, role: str = "documents") -> list[dict[str, Any]]:
        """For each shard of the documents ``{"shard", "bytes": of the largest row group, "size"}``.

        Raises:
            UserError: see :meth:`opened`.
        """
        documents = self.opened(ctx, role)
        if self.earlier is None:
            return sidecar.groups(documents)
        with self.earlier.reading():
            return sidecar.groups(replace(documents, check=None))

    # Phase "sign".

    def _plan(self, ctx: TaskContext) -> list[dict[str, Any]]:
        documents = self.opened(ctx)
        judged: list[str | None] = [None] * len(documents.shards)
        if self.earlier is not None:
            judged = [shard["digest"] for shard in self.earlier.open("verdicts").shards]
        if self.earlier is not None and self.earlier.signatures is not None:
            specs = [{"shard": i, "bytes": 0, "size": shard["rows"]} for i, shard in enumerate(documents.shards)]
        else:
            specs = self.groups(ctx)
        digests = [shard["digest"] for shard in documents.shards]
        return [
            {**spec, "key": task_key(self, shape(self.near), digest, verdict)}
            for spec, digest, verdict in zip(specs, digests, judged, strict=True)
        ]

    def _sign(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        fields = pa.schema([*schema(bands(self.near)[0]), ROW])
        size = 0

        def batches() -> Iterator[pa.RecordBatch]:
            nonlocal size
            for signed, rows in self._signed(ctx, spec["shard"]):
                size += int(signed.bytes.sum())
                batch = batch_of(signed, bands(self.near)[0])
                yield pa.RecordBatch.from_arrays([*batch.columns, pa.array(rows.astype(np.uint64))], schema=fields)
                ctx.progress(len(rows), int(signed.bytes.sum()))

        return {"documents": write(ctx, fields, batches()), "bytes": size}

    def _signed(self, ctx: TaskContext, shard: int) -> Iterator[tuple[Signed, npt.NDArray[np.int64]]]:
        """The signatures of the documents that count, with their rows in the shard."""
        from headrace.documents.store import read_batches

        documents = self.opened(ctx)
        kept = self._kept(shard, int(documents.shards[shard]["rows"]))
        row = 0
        if self.earlier is not None and self.earlier.signatures is not None:
            for signed in read(self.earlier.open("signatures"), shard):
                mine = kept[row : row + len(signed.high)]
                yield _some(signed, mine, self.near is not None), row + np.flatnonzero(mine)
                row += len(mine)
            return
        for batch in carefully(ctx, read_batches(documents.shard_path(shard), columns(self.near), BATCH_BYTES)):
            ctx.at(f"rows {row} to {row + batch.num_rows - 1} of {documents.path}, shard {shard}")
            mine = kept[row : row + batch.num_rows]
            yield sign(self.near, batch.filter(pa.array(mine))), row + np.flatnonzero(mine)
            row += batch.num_rows

    def _kept(self, shard: int, rows: int) -> npt.NDArray[np.bool_]:
        """Which documents of a shard count."""
        from headrace.documents.store import read_columns

        if self.earlier is None:
            return np.ones(rows, dtype=bool)
        verdicts = self.earlier.open("verdicts")
        with self.earlier.reading():
            table = read_columns(verdicts.shard_path(shard), ["keep"])
        return table.column("keep").to_numpy()

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """Check the number of documents, and add up the bytes of their text.

        Raises:
            ConservationError: it is not the number that the earlier run kept, or that were read.
        """
        results = ctx.results("sign")
        counts = {name: sum(result[name] for result in results) for name in ("documents", "bytes")}
        expected = ctx.input("documents").rows if self.earlier is None else 0
        if self.earlier is not None:
            expected = sum(count["kept"] for count in self.earlier.open("verdicts").manifest.counts.values())
        if counts["documents"] != expected:
            raise ConservationError(f"{self.name}: {counts['documents']} of {expected} documents")
        told = {field.name: str(field.type) for field in [*schema(bands(self.near)[0]), ROW]}
        return {"counts": counts, "schema": told}


def _some(signed: Signed, mine: npt.NDArray[np.bool_], near: bool) -> Signed:
    """The signatures of some documents; without ``near``, no fingerprints."""
    has = mine[signed.which] if near else np.zeros(len(signed.which), dtype=bool)
    place = np.cumsum(mine) - 1
    return Signed(
        signed.high[mine],
        signed.low[mine],
        signed.bytes[mine],
        place[signed.which[has]],
        signed.fingerprints[has],
    )


def rows_of(reference: Artifact, shard: int) -> Iterator[npt.NDArray[np.int64]]:
    """The rows of a shard's documents, in the pieces of :func:`headrace.select.duplicates.signatures.read`."""
    with pa.memory_map(str(reference.shard_path(shard))) as source:
        file = pa.ipc.open_file(source)
        for number in range(file.num_record_batches):
            yield file.get_batch(number).column(ROW.name).to_numpy().astype(np.int64)
