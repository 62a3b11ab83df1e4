"""Damaged tables: seeded changes of bytes in files of many column types, and what readers make of them.

``python mutants.py FOLDER [NAME]`` reads every file there in order, or those behind one, and prints two lines of JSON
for each; a test runs it in a process of its own, since damage that is followed ends a process and not a test.
"""

from __future__ import annotations

import datetime
import decimal
import json
import random
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 300


def columns(parquet: bool) -> pa.Table:
    """A table of ``ROWS`` rows with a column of each kind that the format holds."""
    rows = range(ROWS)
    when = [datetime.datetime(2024, 1, 1) + datetime.timedelta(hours=i) for i in rows]
    made = {
        "text": pa.array([f"text {i} " * (i % 9 + 1) for i in rows]),
        "large": pa.array([f"{i}" for i in rows], pa.large_string()),
        "dictionary": pa.array([f"word {i % 7}" for i in rows]).dictionary_encode(),
        "number": pa.array([None if i % 5 == 0 else i for i in rows], pa.int32()),
        "when": pa.array(when, pa.timestamp("us", "UTC")),
        "day": pa.array([moment.date() for moment in when]),
        "price": pa.array([decimal.Decimal(i) / 4 for i in rows], pa.decimal128(12, 2)),
        "raw": pa.array([bytes([i % 256, 255]) for i in rows]),
        "flag": pa.array([i % 3 == 0 for i in rows]),
        "list": pa.array([[f"{j}" for j in range(i % 4)] if i % 6 else None for i in rows]),
        "struct": pa.array([{"a": i, "b": {"c": f"{i}"}} for i in rows]),
        "map": pa.array([[(f"k{j}", j) for j in range(i % 3)] for i in rows], pa.map_(pa.string(), pa.int64())),
    }
    if not parquet:
        made["view"] = pa.array([f"a longer view of {i}" if i % 2 else "short" for i in rows], pa.string_view())
        made["list_view"] = pa.array([[i, i + 1] for i in rows], pa.list_view(pa.int16()))
        made["union"] = pa.UnionArray.from_dense(
            pa.array([i % 2 for i in rows], pa.int8()),
            pa.array([i // 2 for i in rows], pa.int32()),
            [pa.array(list(rows)), pa.array([str(i) for i in rows])],
        )
        made["runs"] = pa.RunEndEncodedArray.from_arrays([100, 200, ROWS], ["a", None, "c"])
        made["interval"] = pa.array([(1, 2, 3)] * ROWS, pa.month_day_nano_interval())
    return pa.table(made)


def write(path: Path, kind: str, seed: int) -> None:
    """A file of one kind: ``file`` or ``stream`` (Arrow, compressed by turns), or ``parquet`` in several dresses."""
    table = columns(kind == "parquet")
    if kind == "parquet":
        dress = [
            {"compression": "none"},
            {"compression": "zstd", "data_page_version": "2.0"},
            {"compression": "snappy", "write_page_checksum": True},
            {"compression": "lz4", "use_dictionary": False, "data_page_size": 512},
        ][seed % 4]
        pq.write_table(table, path, row_group_size=100, **dress)
        return
    options = pa.ipc.IpcWriteOptions(compression=[None, "lz4", "zstd"][seed % 3])
    new = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
    with new(str(path), table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=100)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Damage of the kinds that disks, networks and attackers cause."""
    damaged = bytearray(data)
    kind = rng.randrange(6)
    if kind == 0:
        return bytes(damaged[: rng.randrange(len(damaged))])
    if kind == 1:
        at, length = rng.randrange(len(damaged)), rng.randrange(1, 65)
        damaged[at : at + length] = bytes(len(damaged[at : at + length]))
    elif kind == 2:
        at = rng.randrange(len(damaged))
        del damaged[at : at + rng.randrange(1, 65)]
    elif kind == 3:  # an extreme number at a place where numbers are
        at = rng.randrange(len(damaged) // 4) * 4
        value = rng.choice([-1, 1 << 31, 1 << 40, -(1 << 63), (1 << 63) - 1, 1]) & (1 << 64) - 1
        damaged[at : at + 8] = value.to_bytes(8, "little")[: len(damaged[at : at + 8])]
    else:
        for _ in range(rng.randrange(1, 12)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    return bytes(damaged)


def mutants(folder: Path, kind: str, count: int, seed: int) -> None:
    """Write ``count`` damaged files of a kind to a folder."""
    suffix = "parquet" if kind == "parquet" else "arrow"
    rng = random.Random(f"{kind} {seed}")
    for number in range(count):
        path = folder / f"{number:05d}.{suffix}"
        write(path, kind, number)
        path.write_bytes(mutate(path.read_bytes(), rng))


def main(folder: Path, behind: str = "") -> None:
    """Read every file, and say what became of its rows."""
    from reading_helpers import listed

    from headrace.documents.readers import reader
    from headrace.documents.readers.base import Bad, Lost, Record, Tally
    from headrace.documents.rows import RowMaker
    from headrace.errors import UserError

    for path in sorted(path for path in folder.iterdir() if path.name > behind):
        print(json.dumps({"file": path.name}), flush=True)
        said = {"documents": 0, "bad": 0, "lost_rows": 0, "lost_bytes": 0, "error": ""}
        try:
            file, source = listed(path)
            maker, tally = RowMaker("s", source, "nfc"), Tally()
            parts = reader(file.format).split(file)
            for item in (item for part in parts for item in reader(file.format).read(file, part, source, tally)):
                if isinstance(item, Lost):
                    said["lost_rows"] += item.rows
                    said["lost_bytes"] += item.bytes
                    continue
                assert isinstance(item, Record | Bad)
                made = maker.make(file.name, item) if isinstance(item, Record) else item
                said["bad" if isinstance(made, Bad) else "documents"] += made.rows if isinstance(made, Bad) else 1
            assert tally.read == said["documents"] + said["bad"]
        except UserError as error:
            said["error"] = f"{error.what} {error.where}"
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
