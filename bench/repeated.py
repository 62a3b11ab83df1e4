"""An artifact many times over: what a large run holds, made of a small one's shards."""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.documents.store import read_columns
from headrace.flow.artifact import MANIFEST, Artifact
from headrace.flow.storage import write_sealed
from headrace.sequence.store import open_shard

Place = Callable[[Path, Path, int], None]
"""Makes a shard's file from one, given by how many its row numbers grow."""


def linked(path: Path, made: Path, grown: int) -> None:
    """The same file: it takes no room, neither on disk nor in memory."""
    os.link(path, made)


def copied(path: Path, made: Path, grown: int) -> None:
    """A file of its own, for shards without row numbers of documents."""
    shutil.copyfile(path, made)


def moved(path: Path, made: Path, grown: int) -> None:
    """A sidecar of duplicates: its columns name rows."""
    table = read_columns(path)
    for name in ("component", "exact_of"):
        at = table.column_names.index(name)
        column = table.column(name)
        table = table.set_column(at, table.schema.field(name), pc.add(column, pa.scalar(grown, column.type)))
    pq.write_table(table, made, compression="zstd")


def sequence_shard(seq_len: int) -> Place:
    """A shard of a sequence: its segments name documents."""

    def place(path: Path, made: Path, grown: int) -> None:
        shutil.copyfile(path, made)
        rows = open_shard(made, seq_len).segments["row"]
        with open(made, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            at = mapped.find(rows[:512].tobytes())
            assert mapped[at : at + rows.nbytes] == rows.tobytes()
            np.frombuffer(mapped, np.uint64, len(rows), at)[:] += np.uint64(grown)

    return place


def repeat(artifact: Artifact, times: int, place: Place = linked, rows: int = 0, once: int = 0) -> None:
    """Let an artifact have its shards many times over.

    Args:
        artifact: the artifact; its manifest is replaced.
        times: how often.
        place: makes the files.
        rows: documents of one time, by which row numbers grow.
        once: shards at the end that stay at the end, once.
    """
    manifest = artifact.manifest
    last = len(manifest.shards) - once
    shards = []
    for time in range(times):
        for entry in manifest.shards if time == times - 1 else manifest.shards[:last]:
            path = artifact.path / str(entry["name"])
            made = artifact.path / f"{len(shards):06d}-of-many{path.suffix}"  # in order, as names of shards are
            (place if time else linked)(path, made, time * rows)
            shards.append({**entry, "name": made.name, "bytes": made.stat().st_size})
    for entry in manifest.shards:
        (artifact.path / str(entry["name"])).unlink()
    counts = {name: multiplied(told, times) for name, told in manifest.counts.items()}
    extra = dict(manifest.extra)
    if "first_rows" in extra:
        first = extra["first_rows"]
        extra["first_rows"] = [row + time * rows for time in range(times) for row in first[:last]]
        extra["first_rows"] += [row + (times - 1) * rows for row in first[last:]]
    write_sealed(artifact.path / MANIFEST, replace(manifest, shards=shards, counts=counts, extra=extra).to_json())


def multiplied(value: object, times: int) -> object:
    """Counts, many times over."""
    if isinstance(value, dict):
        return {key: multiplied(one, times) for key, one in value.items()}
    return value * times if isinstance(value, int) else value
