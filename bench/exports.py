"""Writing a sequence in formats of samples, against the writers that come with them.

Ours is the whole export: it reads the sequence and checks its digests, and writes files, digests and a manifest, all
synced to the disk. The peers are given rows that lie in memory.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.built import sequence
from bench.harness import Result, Setting, Side, compare, require
from headrace.export import write
from headrace.flow.task import TaskContext
from headrace.formats.format import Exported, Options, Part
from headrace.formats.samples import sample_blocks
from headrace.formats.sequences import SequenceExport

TARGET = 50  # M tokens/s a core


class Row(NamedTuple):
    """A row as a user has it: [L + 1] tokens, bool[L + 1], JSON."""

    tokens: np.ndarray
    loss: np.ndarray
    segments: str


def mds(rows: list[Row], folder: Path) -> None:
    """mosaicml-streaming's writer."""
    from bench.mosaic import streaming

    width, dtype = rows[0].tokens.size, rows[0].tokens.dtype
    columns = {"tokens": f"ndarray:{dtype}:{width}", "loss_mask": f"ndarray:uint8:{width}", "segments": "str"}
    with streaming().MDSWriter(columns=columns, out=str(folder), size_limit=None, hashes=["xxh3_128"]) as out:
        for row in rows:
            out.write({"tokens": row.tokens, "loss_mask": row.loss.view(np.uint8), "segments": row.segments})


def litdata(rows: list[Row], folder: Path) -> None:
    """litdata's writer, without the processes that its ``optimize`` starts."""
    from litdata.streaming.writer import BinaryWriter

    out = BinaryWriter(str(folder), chunk_size=len(rows))
    for i, row in enumerate(rows):
        out[i] = {"input_ids": row.tokens, "loss_mask": row.loss, "segments": row.segments}
    out.done()
    out.merge()


def litdata_tokens(rows: list[Row], folder: Path) -> None:
    """The same, of tokens alone."""
    from litdata.streaming.item_loader import TokensLoader
    from litdata.streaming.writer import BinaryWriter

    width = rows[0].tokens.size
    out = BinaryWriter(str(folder), chunk_size=len(rows) * width, item_loader=TokensLoader(block_size=width))
    for i, row in enumerate(rows):
        out[i] = row.tokens
    out.done()
    out.merge()


def webdataset(rows: list[Row], folder: Path) -> None:
    """webdataset's writer."""
    from webdataset import TarWriter

    with open(folder / "shard-000000.tar", "wb") as file, TarWriter(file, mtime=0) as out:
        for i, row in enumerate(rows):
            sample = {"input_ids.npy": row.tokens, "loss_mask.npy": row.loss, "segments.json": row.segments.encode()}
            out.write({"__key__": f"{i:09d}", **sample})


def array_record(rows: list[Row], folder: Path) -> None:
    """array_record's writer; NumPy makes the records."""
    from array_record.python.array_record_module import ArrayRecordWriter

    out = ArrayRecordWriter(str(folder / "data.array_record"), "group_size:1,uncompressed,max_parallelism:1")
    for row in rows:
        record = io.BytesIO()
        np.save(record, row.tokens)
        np.save(record, row.loss)
        record.write(row.segments.encode())
        out.write(record.getvalue())
    out.close()


PEERS: dict[str, tuple[str, Callable[[list[Row], Path], None]]] = {
    "mds": ("mosaicml-streaming", mds),
    "litdata": ("litdata", litdata),
    "litdata-tokens": ("litdata", litdata_tokens),
    "webdataset": ("webdataset", webdataset),
    "array_record": ("array_record", array_record),
}


def size(folder: Path) -> int:
    """Bytes of the data files of a folder."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix != ".json")


def run(setting: Setting) -> Iterator[Result]:
    """Each format into one file on one core."""
    os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")
    artifact = sequence(setting)
    one = Exported("rows", str(artifact.path.absolute()), artifact.manifest.identity)
    reader = one.open()
    rows = len(reader)
    given = list(_rows(one))
    amount = rows * (reader.seq_len + 1) / 1e6
    for name, (peer, their_writer) in PEERS.items():
        ours, theirs = setting.work / f"export-{name}", setting.work / f"export-{name}-{peer}"

        def clear(ours: Path = ours, theirs: Path = theirs) -> None:
            for folder in (ours, theirs):
                shutil.rmtree(folder, ignore_errors=True)
            theirs.mkdir(parents=True)

        step = SequenceExport(name, (one,), Options(rows_per_file=rows))

        def export(step: SequenceExport = step, ours: Path = ours) -> int:
            return size(write(step, ours, workers=0) / "rows")

        def peer_writes(write: Any = their_writer, theirs: Path = theirs) -> int:
            write(given, theirs)
            return size(theirs)

        yield compare(
            setting,
            f"export, {name}",
            peer,
            "M tokens/s",
            Side(export, amount, clear),
            Side(peer_writes, amount, clear),
            TARGET,
            "ours",
            lambda a, b: require(a == b, f"ours are {a} bytes, theirs {b}"),
        )
        clear()


def _rows(one: Exported) -> Iterator[Row]:
    reader = one.open()
    ctx = TaskContext(Path(), SequenceExport("mds", (one,), Options()))
    for samples in sample_blocks(ctx, reader, Part("", 0, 0, len(reader))):
        for sample in samples:
            loss = np.frombuffer(sample.loss, dtype=bool)
            yield Row(np.frombuffer(sample.tokens, dtype=reader.dtype), loss, sample.segments.decode())
