"""The sidecar of licenses: the license of each document, and how it was found.

read     map   what a document's text, its record and the recipe state; the licenses in license files
join     fold  the license of each folder of a repository that has license files
publish  map   the sidecar: documents that state nothing themselves get the license of the nearest folder
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from headrace import spdx
from headrace.documents.store import read_batches, read_columns, text_buffers
from headrace.flow.step import Phase, Step
from headrace.flow.task import TaskContext
from headrace.recipe.schema import Recipe
from headrace.select import sidecar
from headrace.select.licences.columns import FOUND, SCHEMA, stated
from headrace.select.licences.detect import FILE, HEAD, folders, is_licence_file, licence_text, spdx_lines

KEY = "S16"  # XXH3, 128 bits, of source, repository and folder
FILES = pa.schema([("key", pa.binary(16)), ("license", pa.string())])
JOINED = "folders.parquet"
WHOLE = 1 << 62  # bytes: a batch is a row group, so that row groups match those of the documents


@dataclass(frozen=True)
class Licences(Step):
    """A sidecar of licenses, aligned with the documents.

    Attributes:
        documents: the Documents step.
        declared: the license that the recipe declares for each source.
        searched: the sources whose texts and license files are searched.
    """

    documents: Step
    declared: dict[str, str | None]
    searched: frozenset[str]

    kind: ClassVar[str] = "licences"
    VERSION: ClassVar[int] = 1

    @staticmethod
    def of(recipe: Recipe, documents: Step) -> Licences | None:
        """The step for a recipe, None if no source asks for it."""
        searched = frozenset(name for name, source in recipe.sources.items() if source.licenses is not None)
        declared = {name: source.license for name, source in recipe.sources.items()}
        return Licences(documents, declared, searched) if searched else None

    def params(self) -> dict[str, Any]:
        """What is declared and searched, and the versions of the libraries that recognize licenses."""
        return {"declared": self.declared, "searched": sorted(self.searched), "libraries": spdx.detectors()}

    def inputs(self) -> dict[str, Step]:
        """The documents."""
        return {"documents": self.documents}

    def phases(self) -> list[Phase]:
        """Read, join, publish."""
        return [
            Phase("read", sidecar.plan, self._read, sidecar.memory),
            Phase("join", lambda ctx: [{}], self._join),
            Phase("publish", sidecar.plan, self._publish),
        ]

    def _read(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        """State the licenses of a shard, and list its license files."""
        path = ctx.input("documents").shard_path(spec["shard"])
        columns, rows = ["source", "license", "repo", "path", "text"], 0
        with (
            ctx.intermediate(f"stated-{ctx.task:05d}.parquet") as out,
            ctx.intermediate(f"files-{ctx.task:05d}.parquet") as listed,
            pq.ParquetWriter(out.path, SCHEMA) as writer,
            pq.ParquetWriter(listed.path, FILES) as files,
        ):
            for batch in read_batches(path, columns, WHOLE):
                ctx.at(f"document rows {rows} to {rows + batch.num_rows - 1} of shard {spec['shard']}")
                table, found = self._look(batch)
                writer.write_table(table)
                files.write_table(found)
                rows += batch.num_rows
                ctx.progress(batch.num_rows, batch.column("text").nbytes)
        return {"documents": rows}

    def _look(self, batch: pa.RecordBatch) -> tuple[pa.Table, pa.Table]:
        """What the documents of a batch state, in :data:`SCHEMA`, and the license files among them, in
        :data:`FILES`."""
        table = stated(batch, self.declared)
        licences, ways = (table.column(name).to_pylist() for name in SCHEMA.names)
        data, offsets = text_buffers(batch.column("text"))
        sources, repos, paths = (batch.column(name).to_pylist() for name in ("source", "repo", "path"))
        keys: list[bytes] = []
        texts: list[str] = []
        for i, source in enumerate(sources):
            if source not in self.searched:
                continue
            start, end = int(offsets[i]), int(offsets[i + 1])
            if found := spdx_lines(bytes(data[start : min(end, start + HEAD)])):
                licences[i], ways[i] = found, "text"
            names_one = repos[i] and paths[i] and is_licence_file(paths[i])
            if names_one and (text := licence_text(bytes(data[start : min(end, start + FILE)]))):
                keys.append(_key(source, repos[i], folders(paths[i])[0]))
                texts.append(text)
        return pa.table([licences, ways], schema=SCHEMA), pa.table([keys, texts], schema=FILES)

    def _join(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        """Sort all license files by folder; several in one folder hold together."""
        found = (read_columns(ctx.scratch("read", f"files-{k:05d}.parquet")) for k in range(ctx.tasks("read")))
        table = pa.concat_tables([FILES.empty_table(), *found])
        keys = _keys(table.column("key"))
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        licences = table.column("license").take(pa.array(order))
        starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.empty(0, np.int64)
        sizes = np.diff(np.append(starts, len(keys)))
        several = [
            spdx.joined(licences.slice(int(starts[k]), int(sizes[k])).to_pylist()) for k in np.flatnonzero(sizes > 1)
        ]
        first = licences.take(pa.array(starts)).combine_chunks()
        first = pc.replace_with_mask(first, pa.array(sizes > 1), pa.array(several, pa.string()))
        with ctx.intermediate(JOINED) as out:
            column = table.column("key").take(pa.array(order[starts]))
            pq.write_table(pa.table([column, first], schema=FILES), out.path)
        return {"folders": len(first)}

    def _publish(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        """Write a shard of the sidecar."""
        joined = read_columns(ctx.scratch("join", JOINED))
        keys, licences = _keys(joined.column("key")), joined.column("license")
        said = read_columns(ctx.scratch("read", f"stated-{spec['shard']:05d}.parquet"))
        path = ctx.input("documents").shard_path(spec["shard"])
        counts: Counter[str] = Counter()
        with ctx.shard() as out, pq.ParquetWriter(out.path, SCHEMA, compression=sidecar.COMPRESSION) as writer:
            for batch in read_batches(path, ["source", "repo", "path"], WHOLE):
                table = said.slice(out.rows, batch.num_rows)
                if len(keys):
                    table = self._from_files(table, batch, keys, licences)
                writer.write_table(table, row_group_size=batch.num_rows)
                out.rows += batch.num_rows
                for source, way in zip(
                    batch.column("source").to_pylist(), table.column("found").to_pylist(), strict=True
                ):
                    counts[f"{source} {way or ''}"] += 1
                ctx.progress(batch.num_rows)
            rows = out.rows
        return {"documents": rows, "found": dict(sorted(counts.items()))}

    def _from_files(
        self, table: pa.Table, batch: pa.RecordBatch, keys: np.ndarray, licences: pa.ChunkedArray
    ) -> pa.Table:
        """The licenses of a batch, with those of files where neither text nor record states one."""
        names, ways = (table.column(name).to_pylist() for name in SCHEMA.names)
        known: dict[tuple[str, str, str], str | None] = {}
        for i, place in enumerate(self._places(batch)):
            if place is None or ways[i] in ("text", "field"):
                continue
            if place not in known:
                known[place] = _nearest(place, keys, licences)
            if (found := known[place]) is not None:
                names[i], ways[i] = found, "file"
        return pa.table([names, ways], schema=SCHEMA)

    def _places(self, batch: pa.RecordBatch) -> Iterator[tuple[str, str, str] | None]:
        """Source, repository and folder of each document that license files may speak of."""
        columns = (batch.column(name).to_pylist() for name in ("source", "repo", "path"))
        for source, repo, path in zip(*columns, strict=True):
            known = source in self.searched and repo and path
            yield (source, repo, folders(path)[0]) if known else None

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """Check the number of rows, and count how licenses were found.

        Raises:
            ConservationError: a document has no row.
        """
        results = ctx.results("publish")
        sidecar.check_rows(ctx, sum(result["documents"] for result in results))
        total: Counter[str] = Counter()
        for result in results:
            total.update(result["found"])
        counts = {name: {way or "none": total[f"{name} {way}"] for way in (*FOUND, "")} for name in self.declared}
        return {"counts": counts, "schema": {field.name: str(field.type) for field in SCHEMA}}


def _key(source: str, repo: str, folder: str) -> bytes:
    return xxhash.xxh3_128_digest("\0".join((source, repo.casefold(), folder)).encode())


def _keys(column: pa.ChunkedArray) -> np.ndarray:
    """The keys as an array that numpy sorts. It leaves zeros at the end out of comparisons, which is as good here."""
    whole = column.combine_chunks()
    data = whole.buffers()[1]
    return np.frombuffer(data if data is not None else b"", dtype=KEY)[whole.offset : whole.offset + len(whole)]


def _nearest(place: tuple[str, str, str], keys: np.ndarray, licences: pa.ChunkedArray) -> str | None:
    source, repo, folder = place
    for above in folders(f"{folder}/" if folder else ""):
        wanted = np.frombuffer(_key(source, repo, above), dtype=KEY)[0]
        at = int(np.searchsorted(keys, wanted))
        if at < len(keys) and keys[at] == wanted:
            return str(licences[at].as_py())
    return None
