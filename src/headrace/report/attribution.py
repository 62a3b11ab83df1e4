"""Every document that stages are made of: where it is from, under which license, and how many tokens each stage has of
it. Streamed by shards of documents, so memory does not grow with the corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.documents.store import SCHEMA as DOCUMENTS
from headrace.documents.store import read_columns
from headrace.documents.urls import url_of
from headrace.flow.artifact import Artifact
from headrace.select.licences.columns import Declared, licence_columns
from headrace.sequence.store import ArrowSequence
from headrace.sequence.windows import PADDING

ATTRIBUTION = "ATTRIBUTION.parquet"
COLUMNS = ("id", "source", "repo", "path", "origin_file", "origin_row", "language")
COUNTED_BYTES = 32 << 20  # of counts at a time, for as many shards of documents as that allows
ROWS = 1 << 16  # of a row group


@dataclass(frozen=True)
class Use:
    """What stages take from the documents of a source in one language and under one license.

    Attributes:
        source, language, license, found: as in the columns of the same names; '' where they are null.
        documents: distinct documents.
        tokens: stage -> tokens in its rows, every copy counted.
    """

    source: str
    language: str
    license: str
    found: str
    documents: int
    tokens: dict[str, int]


def attribution(
    documents: Artifact,
    sequences: Mapping[str, ArrowSequence],
    licences: Artifact | None,
    declared: Declared,
    verdicts: Artifact | None = None,
) -> Iterator[pa.Table]:
    """The documents in any of some sequences, in the order of the corpus.

    Args:
        documents: what the sequences are built from.
        sequences: by stage.
        licences, declared: as for :func:`headrace.select.licences.columns.licence_columns`.
        verdicts: if given, all documents that are kept, in a sequence or not.

    Yields:
        Tables with the columns of :func:`schema`.
    """
    for shard, tokens in _counted(documents, list(sequences.values())):
        used = tokens.any(axis=0)
        if verdicts is not None:
            used |= read_columns(verdicts.shard_path(shard), ["keep"]).column("keep").to_numpy()
        which = pa.array(np.flatnonzero(used))
        table = read_columns(documents.shard_path(shard), [*COLUMNS, "meta"]).take(which)
        found = licence_columns(documents, shard, licences, declared).take(which)
        counts = [pa.array(row[used]) for row in tokens]
        columns = {name: table.column(name) for name in COLUMNS}
        columns |= {
            "url": pa.array([url_of(meta.as_py()) for meta in table.column("meta")], pa.string()),
            "license": found.column("license"),
            "license_found": found.column("found"),
            "tokens": pa.StructArray.from_arrays(counts, names=list(sequences)) if counts else None,
        }
        wanted = schema(sequences)
        yield pa.table([columns[field.name] for field in wanted], schema=wanted)


def schema(stages: Iterable[str]) -> pa.Schema:
    """The columns of ``ATTRIBUTION.parquet``: ``tokens`` has a field for each stage, and is absent without stages."""
    fields = [DOCUMENTS.field(name) for name in COLUMNS]
    fields += [pa.field(name, pa.string()) for name in ("url", "license", "license_found")]
    counts = [pa.field(stage, pa.int64()) for stage in stages]
    return pa.schema([*fields, pa.field("tokens", pa.struct(counts))] if counts else fields)


def write_attribution(path: Path, tables: Iterable[pa.Table], stages: Iterable[str]) -> int:
    """Write ``ATTRIBUTION.parquet``; returns the number of documents."""
    rows = 0
    with pq.ParquetWriter(path, schema(stages), compression="zstd") as file:
        for table in tables:
            file.write_table(table, row_group_size=ROWS)
            rows += len(table)
    return rows


def uses(tables: Iterable[pa.Table]) -> list[Use]:
    """What :func:`attribution` lists, added up by source, language and license; most documents first."""
    documents: Counter[_Key] = Counter()
    tokens: dict[_Key, Counter[str]] = {}
    names = ["source", "language", "license", "license_found"]
    for table in tables:
        stages = [field.name for field in table.schema.field("tokens").type] if "tokens" in table.column_names else []
        flat = table.select(names)
        for stage in stages:
            flat = flat.append_column(f"tokens {stage}", pa.compute.struct_field(table.column("tokens"), stage))
        sums = flat.group_by(names, use_threads=False).aggregate(
            [([], "count_all"), *((f"tokens {stage}", "sum") for stage in stages)]
        )
        for row in sums.to_pylist():
            key = _Key(*(row[name] or "" for name in names))
            documents[key] += row["count_all"]
            total = tokens.setdefault(key, Counter())
            for stage in stages:
                total[stage] += row[f"tokens {stage}_sum"]
    order = sorted(documents, key=lambda key: (-documents[key], key))
    return [Use(*key, documents=documents[key], tokens=dict(tokens[key])) for key in order]


class _Key(NamedTuple):
    source: str
    language: str
    license: str
    found: str


def _counted(documents: Artifact, sequences: list[ArrowSequence]) -> Iterator[tuple[int, np.ndarray]]:
    """For each shard of documents, the tokens that each sequence has of each document: int64[sequences, documents].

    The rows are in training order, so the segments are read once for as many shards as :data:`COUNTED_BYTES` allow.
    """
    offsets = documents.row_offsets
    most = COUNTED_BYTES // (8 * max(1, len(sequences)))
    start = 0
    while start < len(documents.shards):
        stop = start + 1
        while stop < len(documents.shards) and offsets[stop + 1] - offsets[start] <= most:
            stop += 1
        first, last = int(offsets[start]), int(offsets[stop])
        counts = np.zeros((len(sequences), last - first), dtype=np.int64)
        for total, sequence in zip(counts, sequences, strict=True):
            for index in range(len(sequence.artifact.shards)):
                segments = sequence.shard(index).segments
                row = segments["row"].astype(np.int64)
                mine = (segments["kind"] != PADDING) & (row >= first) & (row < last)
                np.add.at(total, row[mine] - first, segments["length"][mine].astype(np.int64))
        for shard in range(start, stop):
            yield shard, counts[:, offsets[shard] - first : offsets[shard + 1] - first]
        start = stop
