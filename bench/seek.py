"""Opening a sequence of 10^9 rows and reading at a random place: a manifest of all its shards, sparse files."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from bench.built import sequence
from bench.harness import Result, Setting, result
from headrace.flow.artifact import MANIFEST, Artifact
from headrace.flow.storage import digest_file, write_sealed
from headrace.sequence.layout import Shards
from headrace.sequence.loader import Loader
from headrace.sequence.store import open_sequence, schema

ROWS = 1_000_000_000
SEEKS = 40
BATCH = 8
_HOLE = 1 << 16


def shard_file(path: Path, seq_len: int, dtype: np.dtype, rows: int) -> None:
    """A shard of so many rows of zeros, as the sequence step writes it."""
    wanted = schema(seq_len, dtype)
    tokens = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(rows * (seq_len + 1), dtype=dtype)), seq_len + 1)
    # A segment a row, over the whole of it.
    item = wanted.field("segments").type.value_type
    fields = []
    for field in item:
        value = seq_len + 1 if field.name == "length" else 0
        fields.append(pa.array(np.full(rows, value, dtype=field.type.to_pandas_dtype())))
    segments = pa.ListArray.from_arrays(
        pa.array(np.arange(rows + 1, dtype=np.int32)), pa.StructArray.from_arrays(fields, fields=list(item))
    )
    loss = pa.nulls(rows, wanted.field("loss").type)
    columns = [
        tokens.cast(wanted.field("tokens").type),
        loss,
        segments.cast(wanted.field("segments").type),
    ]
    batch = pa.record_batch(columns, schema=wanted)
    with pa.OSFile(str(path), "wb") as out, pa.ipc.new_file(out, wanted) as writer:
        writer.write_batch(batch)


def filled(path: Path) -> tuple[list[tuple[int, bytes]], int]:
    """Where a file holds anything but zeros, as (place, block), and its size."""
    found = []
    with open(path, "rb") as file:
        for place in range(0, path.stat().st_size, _HOLE):
            block = file.read(_HOLE)
            if block.count(0) < len(block):
                found.append((place, block))
    return found, path.stat().st_size


def sparse(path: Path, blocks: list[tuple[int, bytes]], size: int) -> None:
    """A file with holes wherever no block lies."""
    with open(path, "wb") as out:
        for place, block in blocks:
            out.seek(place)
            out.write(block)
        out.truncate(size)


def billion(small: Artifact, folder: Path) -> tuple[int, Callable[[int, int], None]]:
    """A sequence of :data:`ROWS` rows of zeros like a smaller one: its manifest, and none of its shards yet.

    Returns:
        Its rows, and a function that makes the shards of some of them.
    """
    reader = open_sequence(small.path)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    count = Shards.of(ROWS, (reader.seq_len + 1) * reader.dtype.itemsize).count
    each = -(-ROWS // count)
    model = folder / "model.arrow"
    shard_file(model, reader.seq_len, reader.dtype, each)
    blocks, size = filled(model)
    entry = {"rows": each, "bytes": size, "digest": digest_file(model)}
    manifest = {**small.manifest.to_json(), "shards": [{"name": f"{i:05d}.arrow", **entry} for i in range(count)]}
    write_sealed(folder / MANIFEST, manifest)

    def make(start: int, stop: int) -> None:
        for shard in range(start // each, (stop - 1) // each + 1):
            sparse(folder / f"{shard:05d}.arrow", blocks, size)

    return count * each, make


def scattered(rows: int, make: Callable[[int, int], None], count: int) -> list[int]:
    """Random rows of such a sequence, with the shards that a batch from each of them is in; opening looks at the
    manifest alone."""
    draw = random.Random(1)
    places = [draw.randrange(rows - BATCH) for _ in range(count)]
    for place in places:
        make(place, place + BATCH)
    return places


def run(setting: Setting) -> Iterator[Result]:
    """Milliseconds from a folder's name to a batch at a random row; each with a reader of its own."""
    folder = setting.work / "billion"
    rows, make = billion(sequence(setting), folder)
    places = scattered(rows, make, SEEKS * setting.rounds)
    taken = []
    for place in places:
        start = time.perf_counter()
        next(iter(Loader(folder, BATCH, start=place)))
        taken.append((time.perf_counter() - start) * 1e3)
    rounds = [float(np.median(taken[i :: setting.rounds])) for i in range(setting.rounds)]
    note = f"{rows:,} rows; the slowest of {len(taken)} took {max(taken):.0f} ms"
    shutil.rmtree(folder)
    yield result(setting, "seek, open and read in 10^9 rows", None, "ms", rounds, None, 50, "ours", note)
