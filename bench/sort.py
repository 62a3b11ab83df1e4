"""Sorting and shuffling: what every global step is made of, beside a frame library and a database.

Records of a random key and a row number are put in order of their keys, and documents in order of the keyed hash of
their ids, which is a seeded global shuffle. Both once in memory, each side in its own form, and once from an Arrow file
on disk under a limit of memory, a quarter of the data: ours by the external sort and the exchange, DuckDB by its own
limit and spilling; polars has no limit and takes what it needs. Every side gives the same bytes in the same order.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import xxhash

from bench.corpus import texts as read_texts
from bench.harness import Result, Setting, Side, compare, in_turn, megabytes, require, result
from bench.row_keys import KEY, PIECE
from headrace.documents.ids import content_id
from headrace.documents.store import text_buffers
from headrace.flow.exchange import Spill, read_partition
from headrace.flow.external_sort import ExternalSort
from headrace.flow.identity import Identified
from headrace.flow.keys import keyed, parse_ids, salt
from headrace.flow.slices import gather
from headrace.flow.sorting import order_by, sort_by
from headrace.flow.storage import write_sealed
from headrace.flow.task import TaskContext
from headrace.select.duplicates.step import high_bits

MEMORY_SHARE = 4  # the limit is the data's bytes over this
PARTITIONS = 16  # of texts, so that one of them is read and put in order within the limit
LENGTHS = np.dtype([("key", "<u8"), ("length", "<u8")])

Found = tuple[str, str]
"""What came out: the digests of both columns, in order."""


class Columns:
    """The digest of two columns that come batch by batch."""

    def __init__(self) -> None:
        self._of = (xxhash.xxh3_128(), xxhash.xxh3_128())

    def add(self, first: np.ndarray, second: np.ndarray) -> None:
        """Take the next rows."""
        for state, values in zip(self._of, (first, second), strict=True):
            state.update(np.ascontiguousarray(values).data)

    def found(self) -> Found:
        """The digests."""
        return self._of[0].hexdigest(), self._of[1].hexdigest()


def records_of(rows: int) -> np.ndarray:
    """Records of a key and a row number, in the order of the rows: KEY[rows]."""
    records = np.empty(rows, dtype=KEY)
    records["row"] = np.arange(rows)
    records["key"] = keyed(salt(1, "bench"), records["row"])
    return records


def write(table: pa.Table, path: Path) -> Path:
    """A table as an Arrow file, uncompressed."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=PIECE)
    return path


def batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The batches of an Arrow file, mapped."""
    with pa.memory_map(str(path)) as source:
        file = pa.ipc.open_file(source)
        yield from (file.get_batch(i) for i in range(file.num_record_batches))


def numbers(found: Columns, batch: Any) -> None:
    """Add the rows of a batch of records."""
    found.add(batch.column("key").to_numpy(), batch.column("row").to_numpy())


def strings(found: Columns, batch: pa.RecordBatch) -> None:
    """Add the rows of a batch of documents."""
    data, offsets = text_buffers(batch.column("text").cast(pa.large_string()))
    found.add(data, np.diff(offsets))


# Records.


def sorted_in_memory(records: np.ndarray) -> Found:
    found = Columns()
    ordered = sort_by(records.copy(), ("key",))
    found.add(ordered["key"], ordered["row"])
    return found.found()


def sorted_on_disk(path: Path, folder: Path, memory: int) -> Found:
    sort, found = ExternalSort(folder, KEY, ("key",), memory), Columns()
    for batch in batches(path):
        records = np.empty(len(batch), dtype=KEY)
        for name in ("key", "row"):
            records[name] = batch.column(name).to_numpy()
        sort.add(records)
    for records in sort.chunks():
        found.add(records["key"], records["row"])
    return found.found()


# Documents.


def shuffled_in_memory(keys: np.ndarray, text: pa.Array) -> Found:
    found, (data, offsets) = Columns(), text_buffers(text)
    records = np.empty(len(keys), dtype=[("key", "<u8")])
    records["key"] = keys
    order = order_by(records, ("key",))
    lengths = np.diff(offsets)[order]
    found.add(gather(data, offsets[:-1][order], lengths), lengths)
    return found.found()


@dataclass(frozen=True)
class Shuffle(Identified):
    """What the exchange is part of."""

    kind: ClassVar[str] = "shuffle"
    VERSION: ClassVar[int] = 1

    def params(self) -> dict[str, Any]:
        return {}

    def inputs(self) -> dict[str, Identified]:
        return {}


def shuffled_on_disk(path: Path, folder: Path, memory: int) -> Found:
    """As a sequence's tokens are: each document to the partition of its key, then each partition in order."""
    shutil.rmtree(folder, ignore_errors=True)
    found = Columns()
    ctx = TaskContext(folder, Shuffle(), "scatter", 0, memory)
    ctx.plan("scatter").parent.mkdir(parents=True)
    with Spill(ctx, "texts", LENGTHS, PARTITIONS, payload=True) as spill:
        for batch in batches(path):
            data, offsets = text_buffers(batch.column("text"))
            records = np.empty(len(batch), dtype=LENGTHS)
            records["key"], records["length"] = batch.column("key").to_numpy(), np.diff(offsets)
            spill.add(high_bits(records["key"], PARTITIONS), records, data)
    write_sealed(ctx.plan("scatter"), {"tasks": [{}]})
    for partition in range(PARTITIONS):
        slices = list(read_partition(ctx, "scatter", "texts", partition, LENGTHS, payload=True))
        records, data = (np.concatenate(parts) for parts in zip(*slices, strict=True))
        order = order_by(records, ("key",))
        ends = np.cumsum(records["length"], dtype=np.int64)
        lengths = records["length"].astype(np.int64)
        found.add(gather(data, (ends - lengths)[order], lengths[order]), lengths[order])
    return found.found()


# Peers.


def polars_sort(table: pa.Table, add: Callable[[Columns, Any], None]) -> Callable[[], Found]:
    import polars

    frame = polars.from_arrow(table)
    assert isinstance(frame, polars.DataFrame)

    def run() -> Found:
        found = Columns()
        for batch in frame.sort("key").to_arrow().to_batches():
            add(found, batch)
        return found.found()

    return run


def polars_streamed(path: Path, add: Callable[[Columns, Any], None]) -> Found:
    import polars

    found = Columns()
    for batch in polars.scan_ipc(path).sort("key").collect(engine="streaming").to_arrow().to_batches():
        add(found, batch)
    return found.found()


def duckdb_order(
    source: Any, add: Callable[[Columns, Any], None], threads: int, folder: Path, memory: int | None
) -> Callable[[], Found]:
    import duckdb

    config: dict[str, Any] = {"threads": threads, "temp_directory": str(folder / "duckdb")}
    config["preserve_insertion_order"] = False  # it needs less memory so
    database = duckdb.connect(config=config | ({"memory_limit": f"{memory}B"} if memory else {}))
    database.register("source", source)

    def run() -> Found:
        found = Columns()
        for batch in database.sql("select * from source order by key").to_arrow_reader(PIECE):
            add(found, batch)
        return found.found()

    return run


# The comparison.


@dataclass(frozen=True)
class Case:
    """What is put in order.

    Attributes:
        name: in the table.
        unit: of its rate.
        amount: how much it is, in that unit.
        table: it, with a column ``key``.
        add: adds a batch of it, in order, to what came out.
        in_memory: ours.
        on_disk: ours, from a file in a folder within so much memory.
    """

    name: str
    unit: str
    amount: float
    table: pa.Table
    add: Callable[[Columns, Any], None]
    in_memory: Callable[[], Found]
    on_disk: Callable[[Path, Path, int], Found]

    def beside(
        self,
        setting: Setting,
        where: str,
        ours: Callable[[], Found],
        peer: str,
        theirs: Callable[[], Found],
        note: str = "",
        target: float | None = 1,
    ) -> Result:
        """A row of the table."""
        sides = Side(ours, self.amount), Side(theirs, self.amount)
        name = f"{self.name}, {where}"
        return compare(setting, name, peer, self.unit, *sides, target, agree=_same, note=note)

    def rows(self, setting: Setting, folder: Path) -> Iterator[Result]:
        """In memory and on disk beside each peer."""
        import duckdb
        from pyarrow import dataset

        where = "in memory"
        yield self.beside(setting, where, self.in_memory, "polars", polars_sort(self.table, self.add))
        database = duckdb_order(self.table, self.add, setting.cores, folder, None)
        yield self.beside(setting, where, self.in_memory, "duckdb", database)
        path, memory = write(self.table, folder / "source.arrow"), self.table.nbytes // MEMORY_SHARE

        def ours() -> Found:
            return self.on_disk(path, folder / "ours", memory)

        where = "on disk, within memory for a quarter"
        note = "polars takes the memory it needs"
        yield self.beside(setting, where, ours, "polars", lambda: polars_streamed(path, self.add), note, None)
        database = duckdb_order(dataset.dataset(path, format="ipc"), self.add, setting.cores, folder, memory)
        try:
            yield self.beside(setting, where, ours, "duckdb", database)
        except (duckdb.OutOfMemoryException, OSError) as error:  # texts from Arrow must fit, for one thing
            if "Out of Memory" not in str(error):
                raise
            [mine] = in_turn(setting, [Side(ours, self.amount)], self.unit)
            note = "duckdb refuses: out of memory"
            yield result(setting, f"{self.name}, {where}", "duckdb", self.unit, mine, None, note=note)


def _same(ours: Found, theirs: Found) -> None:
    require(ours == theirs, "not the same order")


def run(setting: Setting) -> Iterator[Result]:
    """Both cases."""
    folder = setting.work / "sort"
    folder.mkdir(exist_ok=True)
    records = records_of(int(setting.mb * 1e6) // KEY.itemsize)
    columns = {name: np.ascontiguousarray(records[name]) for name in ("key", "row")}
    million = len(records) / 1e6
    yield from Case(
        "sort, (key, row) of 16 bytes",
        "M records/s",
        million,
        pa.table(columns),
        numbers,
        lambda: sorted_in_memory(records),
        sorted_on_disk,
    ).rows(setting, folder)
    texts = read_texts(setting.corpus)
    text = pa.array(texts, pa.large_string())
    keys = keyed(salt(1, "bench"), parse_ids([content_id(text.encode()) for text in texts]))
    keys ^= np.arange(len(keys), dtype=np.uint64)  # copies have equal ids
    yield from Case(
        "shuffle, documents",
        "MB/s",
        megabytes(texts),
        pa.table({"key": keys, "text": text}),
        strings,
        lambda: shuffled_in_memory(keys, text),
        shuffled_on_disk,
    ).rows(setting, folder)
    shutil.rmtree(folder)
