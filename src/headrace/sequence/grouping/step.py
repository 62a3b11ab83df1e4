"""The sidecar of groups: the group of each document, and its place in it where that is the same for every stage.

read     map       paths and imports of the files, to the partition of their group
order    exchange  the files of each group in order; their places, to the shard of each
publish  map       the sidecar

Without an order by path or dependencies there is only `publish`.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from headrace.documents.store import read_batches
from headrace.flow.exchange import Spill, partition_bytes, partition_counts, read_partition
from headrace.flow.reuse import task_key
from headrace.flow.slices import gather
from headrace.flow.step import Phase, Step
from headrace.flow.task import TaskContext
from headrace.select import sidecar
from headrace.sequence.grouping.imports import imports_of, language_of
from headrace.sequence.grouping.order import dependencies_first
from headrace.sequence.grouping.resolve import Repository
from headrace.sequence.layout import upper

SCHEMA = pa.schema([pa.field("group", pa.binary(16)), pa.field("rank", pa.uint32(), nullable=False)])
"""The columns: XXH3 of what makes the group, null for a document that stands alone; its place, 0 if none is set."""

_FILE = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<u8"), ("length", "<u4"), ("path", "<u4")])
_RANK = np.dtype([("row", "<u8"), ("rank", "<u4"), ("unused", "<u4")])

# A group with more paths and imports, or more files, than any repository that people wrote (Linux: 5 MB of paths, 40 MB
# with its includes) keeps the order in which it was read: this bounds the memory of a task.
MOST_BYTES, MOST_FILES = 64 << 20, 1 << 18
# Compressed text, and documents, per partition: a fortieth of text, or less, is paths and imports.
_PARTITION_TEXT, _PARTITION_FILES, _MOST_PARTITIONS = 1 << 30, 1 << 20, 1024
# What putting files in order takes per byte of paths and imports, and per file: measured with 200,000 files, 54 MB.
_MEMORY_PER_BYTE, _MEMORY_PER_FILE = 3, 600

Rules = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Groups(Step):
    """The groups of some sources, aligned with the documents.

    Attributes:
        documents: the Documents step.
        rules: source -> :attr:`headrace.recipe.grouping.Group.rule`.
        stage: the first stage that groups files by these rules.
    """

    documents: Step
    rules: Rules
    stage: str = ""

    kind: ClassVar[str] = "groups"
    VERSION: ClassVar[int] = 2

    def params(self) -> dict[str, Any]:
        """The rules."""
        return {"rules": self.rules}

    def inputs(self) -> dict[str, Step]:
        """The documents."""
        return {"documents": self.documents}

    @property
    def _ordered(self) -> bool:
        return any(rule["order"] is not None for rule in self.rules.values())

    def phases(self) -> list[Phase]:
        """Read, order, publish."""
        publish = Phase("publish", self._plan_publish, self._publish)
        if not self._ordered:
            return [publish]
        return [
            Phase("read", sidecar.plan, self._read, sidecar.memory),
            Phase("order", self._plan_order, self._order, self._memory),
            publish,
        ]

    # Read.

    def _read(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        """Spill the paths of a shard's files, and what they import."""
        documents = ctx.input("documents")
        path, rows = documents.shard_path(spec["shard"]), 0
        first = int(documents.row_offsets[spec["shard"]])
        partitions = _partitions(documents)
        imports = any(rule["order"] == "dependencies" for rule in self.rules.values())
        columns = ["source", "repo", "path", "language", *(["text"] if imports else [])]
        with Spill(ctx, "files", _FILE, partitions, payload=True) as spill:
            for batch in read_batches(path, columns, sidecar.BATCH_BYTES):
                ctx.at(f"document rows {first + rows} to {first + rows + batch.num_rows - 1}")
                records, payload = self._look(batch, first + rows)
                spill.add(upper(records["high"], partitions), records, payload)
                rows += batch.num_rows
                ctx.progress(batch.num_rows, batch.nbytes)
        return {"documents": rows}

    def _look(self, batch: pa.RecordBatch, first: int) -> tuple[np.ndarray, np.ndarray]:
        """The files of a batch that have a place in their group: _FILE[n], and their payload."""
        records, payload = [], []
        paths, languages = (batch.column(name).to_pylist() for name in ("path", "language"))
        for i, (source, group) in enumerate(self._groups(batch)):
            if group is None or self.rules[source]["order"] is None:
                continue
            path = (paths[i] or "").encode("utf-8", "surrogatepass")
            told = b""
            if self.rules[source]["order"] == "dependencies":
                language = language_of(paths[i] or "", languages[i])
                names = [language, *imports_of(batch.column("text")[i].as_py(), language)]
                told = "\n".join(names).encode("utf-8", "surrogatepass")
            high, low = np.frombuffer(group, dtype="<u8").tolist()
            records.append((high, low, first + i, len(path) + len(told), len(path)))
            payload += [path, told]
        return np.array(records, dtype=_FILE), np.frombuffer(b"".join(payload), dtype=np.uint8)

    def _groups(self, batch: pa.RecordBatch) -> Iterator[tuple[str, bytes | None]]:
        """Source and group of each document; None for those that stand alone."""
        known: dict[tuple[str, str, str | None], bytes] = {}
        columns = (batch.column(name).to_pylist() for name in ("source", "repo", "path", "language"))
        for source, repo, path, language in zip(*columns, strict=True):
            rule = self.rules.get(source)
            if rule is None:
                yield source, None
                continue
            name = group_name(rule["by"], repo, path)
            if not name:
                yield source, None
                continue
            key = source, name, language if rule["within"] == "language" else None
            if key not in known:
                known[key] = xxhash.xxh3_128_digest(orjson.dumps(key))
            yield source, known[key]

    # Order.

    def _plan_order(self, ctx: TaskContext) -> list[dict[str, Any]]:
        counts, sizes = partition_counts(ctx, "read", "files"), partition_bytes(ctx, "read", "files")
        return [
            {"partition": int(p), "files": int(counts[p]), "bytes": int(sizes[p]), "size": int(sizes[p])}
            for p in np.flatnonzero(counts)
        ]

    @staticmethod
    def _memory(spec: dict[str, Any]) -> int:
        """Memory for the largest group that is put in order, and a record of every file."""
        one = _MEMORY_PER_BYTE * min(MOST_BYTES, int(spec["bytes"]))
        return one + _MEMORY_PER_FILE * min(MOST_FILES, int(spec["files"])) + 4 * _FILE.itemsize * int(spec["files"])

    def _order(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        """Put the files of a partition's groups in order."""
        first_rows = ctx.input("documents").row_offsets
        groups, files, sizes = _sizes(ctx, spec["partition"])
        large = (sizes > MOST_BYTES) | (files > MOST_FILES)
        need = _MEMORY_PER_BYTE * sizes[~large] + _MEMORY_PER_FILE * files[~large]
        with Spill(ctx, "ranks", _RANK, len(first_rows) - 1) as spill:
            for some in _passes(groups[~large], need, ctx.memory):
                records, payload = _taken(ctx, spec["partition"], some)
                ranks = _ranked(records, payload)
                spill.add(np.searchsorted(first_rows, ranks["row"].astype(np.int64), side="right") - 1, ranks)
                ctx.progress(len(ranks), len(payload))
        return {"as_read": int(files[large].sum()), "groups_as_read": int(large.sum())}

    # Publish.

    def _plan_publish(self, ctx: TaskContext) -> list[dict[str, Any]]:
        shards = ctx.input("documents").shards
        specs = [{"shard": k, "size": entry["rows"]} for k, entry in enumerate(shards)]
        if self._ordered:
            return specs
        return [spec | {"key": task_key(self, self.rules, shards[spec["shard"]]["digest"])} for spec in specs]

    def _publish(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        """Write a shard of the sidecar."""
        documents, counts = ctx.input("documents"), Counter[str]()
        ranks = np.zeros(int(documents.shards[spec["shard"]]["rows"]), dtype=np.uint32)
        if self._ordered:
            first = int(documents.row_offsets[spec["shard"]])
            for records, _ in read_partition(ctx, "order", "ranks", spec["shard"], _RANK):
                ranks[records["row"].astype(np.int64) - first] = records["rank"]
        path = documents.shard_path(spec["shard"])
        with ctx.shard() as out, pq.ParquetWriter(out.path, SCHEMA, compression=sidecar.COMPRESSION) as writer:
            for batch in read_batches(path, ["source", "repo", "path", "language"], 1 << 62):
                found = list(self._groups(batch))
                counts.update(f"{source} {group is not None}" for source, group in found if source in self.rules)
                mine = ranks[out.rows : out.rows + batch.num_rows]
                table = pa.table([[group for _, group in found], mine], schema=SCHEMA)
                writer.write_table(table, row_group_size=batch.num_rows)
                out.rows += batch.num_rows
                ctx.progress(batch.num_rows)
            rows = out.rows
        return {"documents": rows, "found": dict(sorted(counts.items()))}

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """Check the number of rows, and count the documents in groups and those that stand alone.

        Raises:
            ConservationError: a document has no row.
        """
        results = ctx.results("publish")
        sidecar.check_rows(ctx, sum(result["documents"] for result in results))
        total = sum((Counter(result["found"]) for result in results), Counter[str]())
        counts = {name: {"grouped": total[f"{name} True"], "alone": total[f"{name} False"]} for name in self.rules}
        ordered = ctx.results("order") if self._ordered else []
        as_read = {field: sum(result[field] for result in ordered) for field in ("groups_as_read", "as_read")}
        return {"counts": counts, "schema": {field.name: str(field.type) for field in SCHEMA}, **as_read}


def group_name(by: str, repo: str | None, path: str | None) -> str | None:
    """What a document's group is called; None or '' if it has none."""
    return repo if by == "repo" else (path or "").lstrip("/").rpartition("/")[0].partition("/")[0]


class GroupRows(NamedTuple):
    """The groups of some documents.

    Attributes:
        grouped: bool[n], False for a document that stands alone.
        groups: uint64[n, 2]; zeros for those.
        ranks: uint32[n].
    """

    grouped: np.ndarray
    groups: np.ndarray
    ranks: np.ndarray


def groups_of(table: pa.Table) -> GroupRows:
    """The rows of a shard of the sidecar."""
    column = table.column("group").combine_chunks()
    grouped = column.is_valid().to_numpy(zero_copy_only=False)
    groups = np.zeros((len(table), 2), dtype=np.uint64)
    data = column.buffers()[1]
    if data is not None:
        whole = np.frombuffer(data, dtype="<u8").reshape(-1, 2)[column.offset : column.offset + len(table)]
        groups[grouped] = whole[grouped]
    return GroupRows(grouped, groups, table.column("rank").to_numpy())


def _partitions(documents: Any) -> int:
    """The partitions of groups: by the size of the documents, so never by workers or memory."""
    size = sum(int(entry["bytes"]) for entry in documents.shards)
    parts = math.ceil(max(size / _PARTITION_TEXT, documents.rows / _PARTITION_FILES))
    return min(_MOST_PARTITIONS, max(1, parts))


def _sizes(ctx: TaskContext, partition: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The groups of a partition by the low half of their keys, uint64[n] ascending; and files and bytes of each."""
    lows, lengths = [np.empty(0, dtype=np.uint64)], [np.empty(0, dtype=np.uint32)]
    for records, _ in read_partition(ctx, "read", "files", partition, _FILE, payload=True):
        lows.append(records["low"].copy())
        lengths.append(records["length"].copy())
    groups, which, files = np.unique(np.concatenate(lows), return_inverse=True, return_counts=True)
    sizes = np.bincount(which.reshape(-1), weights=np.concatenate(lengths), minlength=len(groups))
    return groups, files.astype(np.int64), sizes.astype(np.int64)


def _passes(groups: np.ndarray, need: np.ndarray, memory: int) -> Iterator[np.ndarray]:
    """Groups (uint64[n], ascending) in portions that fit in half of the memory, or hold one group; ``need`` is what
    each takes."""
    ends, start = np.cumsum(need), 0
    while start < len(groups):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + memory // 2, side="right")))
        yield groups[start:stop]
        start = stop


def _taken(ctx: TaskContext, partition: int, some: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The files of some groups (uint64, ascending), with their payload."""
    records, payloads = [np.empty(0, dtype=_FILE)], [np.empty(0, dtype=np.uint8)]
    for read, payload in read_partition(ctx, "read", "files", partition, _FILE, payload=True):
        at = np.minimum(np.searchsorted(some, read["low"]), len(some) - 1)
        mine = np.flatnonzero(some[at] == read["low"])
        lengths = read["length"].astype(np.int64)
        records.append(read[mine])
        payloads.append(gather(payload, (np.cumsum(lengths) - lengths)[mine], lengths[mine]))
    return np.concatenate(records), np.concatenate(payloads)


def _ranked(records: np.ndarray, payload: np.ndarray) -> np.ndarray:
    """The places of files in their groups: _RANK[n]."""
    lengths = records["length"].astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    order = np.lexsort((records["row"], records["low"], records["high"]))
    keys = np.stack([records["high"][order], records["low"][order]], axis=1)
    bounds = np.flatnonzero(np.concatenate([[True], (keys[1:] != keys[:-1]).any(axis=1), [True]]))
    data = payload.data
    out = np.zeros(len(records), dtype=_RANK)
    for a, b in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        files = order[a:b].tolist()
        ends = (starts[files] + records["path"][files]).tolist()
        paths = [str(data[start:end], "utf-8", "surrogatepass") for start, end in zip(starts[files], ends, strict=True)]
        told = [data[start:end] for start, end in zip(ends, starts[files] + lengths[files], strict=True)]
        ranked = [files[k] for k in in_order(paths, told)]
        out["row"][a:b], out["rank"][a:b] = records["row"][ranked], np.arange(b - a)
    return out


def in_order(paths: list[str], told: Sequence[bytes | memoryview]) -> list[int]:
    """The order of a group's files: by path, and where they import each other, after those that they import.

    Args:
        paths: of each file.
        told: of each file, its language and imports, one a line, UTF-8; empty for an order by path alone.

    Returns:
        The indices of the files. Equal paths keep their order.
    """
    by_path = sorted(range(len(paths)), key=lambda i: paths[i].split("/"))
    if not any(told):
        return by_path

    # Names are only looked at file by file: as strings, those of a large repository would take several times the bytes.
    def names(i: int) -> list[str]:
        return str(told[i], "utf-8", "surrogatepass").split("\n")

    languages = [sys.intern(names(i)[0]) for i in by_path]
    declared = [[name[1:] for name in names(i) if name.startswith("=")] for i in by_path]
    files = Repository([paths[i] for i in by_path], languages, declared)
    needs = [
        [need for name in names(i)[1:] if not name.startswith("=") for need in files.meant(k, name)]
        for k, i in enumerate(by_path)
    ]
    return [by_path[k] for k in dependencies_first(needs)]
