"""SlimPajama's own layout: shuffled ``.jsonl.zst`` of text and set name, train in 20 chunks, validation and test in 5.

Cerebras' ``shuffle_holdout.py`` keeps a chunk in memory, draws with one seed for all chunks and numbers them as the
file system lists them. Here the keyed hash of a document's id is its place: the same for any workers and memory.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import orjson
import pyarrow as pa

from headrace.errors import UserError
from headrace.flow.exchange import Spill, partition_bytes, partition_counts, read_partition
from headrace.flow.keys import keyed, parse_ids, salt
from headrace.flow.step import Phase
from headrace.flow.task import TaskContext
from headrace.formats.corpus import GROUPS, Corpus
from headrace.formats.documents import TASK_MEMORY, DocumentFormat, memory_for, sizes_in
from headrace.formats.jsonl import compressed, made_with
from headrace.sequence.layout import upper

CHUNKS = {"train": 20, "validation": 5, "test": 5}
NAMES = {"train": "example_train", "validation": "example_holdout", "test": "example_holdout"}
SETS = {
    "commoncrawl": "RedPajamaCommonCrawl",
    "cc": "RedPajamaCommonCrawl",
    "c4": "RedPajamaC4",
    "github": "RedPajamaGithub",
    "book": "RedPajamaBook",
    "books": "RedPajamaBook",
    "arxiv": "RedPajamaArXiv",
    "wikipedia": "RedPajamaWikipedia",
    "stackexchange": "RedPajamaStackExchange",
}
LINE = np.dtype([("key", "<u8"), ("row", "<u8"), ("length", "<u4"), ("group", "u1")])
# Beyond so many, every shard's index of its spill would be larger than what it tells of.
MOST_PARTITIONS = 1024


@dataclass(frozen=True)
class Files:
    """The files of a corpus, numbered through.

    Attributes:
        chunks: by split, the number of its first file and how many files each of its chunks has.
    """

    chunks: dict[str, tuple[int, int]]

    @property
    def count(self) -> int:
        """All files."""
        return max((first + each * CHUNKS[split] for split, (first, each) in self.chunks.items()), default=0)

    @property
    def each(self) -> int:
        """Files of a partition of the exchange."""
        return max(1, math.ceil(self.count / MOST_PARTITIONS))

    @property
    def partitions(self) -> int:
        """Partitions of the exchange."""
        return max(1, math.ceil(self.count / self.each))

    def number(self, split: str, keys: np.ndarray) -> np.ndarray:
        """The file of each key among a split's documents: int64[n], ascending with the keys."""
        first, each = self.chunks[split]
        return first + upper(keys, each * CHUNKS[split])

    def name(self, number: int) -> str:
        """The name of a file."""
        split = next(s for s in reversed(self.chunks) if self.chunks[s][0] <= number)
        first, each = self.chunks[split]
        chunk, within = divmod(number - first, each)
        return f"{split}/chunk{chunk + 1}/{NAMES[split]}_{within}.jsonl.zst"


class SlimPajama(DocumentFormat):
    """The layout of ``cerebras/SlimPajama-627B``."""

    name = "slimpajama"
    about = "SlimPajama's layout: shuffled JSON Lines of text and redpajama_set_name in chunks"
    keeps = frozenset()
    bytes_per_file = 44 << 20  # 2,567 GB in 59,166 files

    def check(self, corpus: Corpus) -> None:
        """Refuse removed documents, for which the layout has no place."""
        if corpus.removed:
            raise UserError("SlimPajama's layout has no place for removed documents.", "--removed", "Choose jsonl.zst.")

    def card(self) -> bool:
        """``datasets`` knows the splits by their folders."""
        return False

    def made_with(self) -> dict[str, str]:
        """The compressor."""
        return made_with("zst")

    def writing(self, corpus: Corpus, bytes_per_file: int) -> list[Phase]:
        """Deal the documents to files, then put each file in order."""

        def dealing(ctx: TaskContext) -> list[dict[str, Any]]:
            files = planned(ctx, bytes_per_file)
            sizes = [result["bytes"] for result in ctx.results("count")]
            return [
                {"shard": k, "size": sum(s), "largest": max(s, default=0), "groups": len(s), "chunks": files.chunks}
                for k, s in enumerate(sizes)
            ]

        def ordering(ctx: TaskContext) -> list[dict[str, Any]]:
            files = planned(ctx, bytes_per_file)
            sizes = partition_bytes(ctx, "deal", "lines") + LINE.itemsize * partition_counts(ctx, "deal", "lines")
            return [
                {"partition": p, "size": n, "file": -(-n // files.each), "chunks": files.chunks}
                for p, n in enumerate(sizes.tolist())
                if n
            ]

        return [
            Phase("deal", dealing, lambda ctx, spec: _deal(ctx, corpus, spec), lambda s: memory_for(s["largest"])),
            # A file's lines as they were read, in order and in pieces; keys are spread evenly, sizes less so.
            Phase("documents", ordering, _order, lambda spec: TASK_MEMORY + 4 * spec["file"]),
        ]


def planned(ctx: TaskContext, bytes_per_file: int) -> Files:
    """The files for the documents that were counted."""
    total: dict[str, int] = {}
    for group, (_, size) in sizes_in(ctx).items():
        total[group.split] = total.get(group.split, 0) + size
    chunks, first = {}, 0
    for split, size in total.items():
        each = max(1, math.ceil(size / CHUNKS[split] / bytes_per_file))
        chunks[split] = (first, each)
        first += each * CHUNKS[split]
    return Files(chunks)


def _deal(ctx: TaskContext, corpus: Corpus, spec: dict[str, Any]) -> dict[str, Any]:
    files, key = Files(spec["chunks"]), salt(0, "slimpajama")
    row = int(corpus.open()[0].row_offsets[spec["shard"]])
    with Spill(ctx, "lines", LINE, files.partitions, payload=True) as spill:
        for table, codes in corpus.read([(spec["shard"], list(range(spec["groups"])))]):
            chosen = np.flatnonzero(codes >= 0)
            if len(chosen):
                some = table.take(pa.array(chosen))
                lines = [_line(*one) for one in _columns(some)]
                records = np.zeros(len(chosen), dtype=LINE)
                records["key"] = keyed(key, parse_ids(some.column("id")))
                records["row"], records["group"] = row + chosen, codes[chosen]
                records["length"] = [len(line) for line in lines]
                partition = _numbers(files, records) // files.each
                spill.add(partition, records, np.frombuffer(b"".join(lines), dtype=np.uint8))
                ctx.progress(rows=len(chosen), bytes=table.nbytes)
            row += len(table)
    return {}


def _columns(table: pa.Table) -> Iterator[tuple[str, str, str | None]]:
    return zip(*(table.column(name).to_pylist() for name in ("text", "source", "meta")), strict=True)


def _line(text: str, source: str, meta: str | None) -> bytes:
    return orjson.dumps({"text": text, "meta": {"redpajama_set_name": _set(source, meta)}}) + b"\n"


def _set(source: str, meta: str | None) -> str:
    """The set that the record named itself, or that the source is, or else the source's name."""
    if meta is not None and "redpajama_set_name" in meta:
        fields = json.loads(meta)
        for inner in (fields, fields.get("meta")):
            if isinstance(inner, dict) and isinstance(inner.get("redpajama_set_name"), str):
                return str(inner["redpajama_set_name"])
    return SETS.get(source.lower().replace("_", "").replace("-", ""), source)


def _numbers(files: Files, records: np.ndarray) -> np.ndarray:
    """The file of each record."""
    out = np.zeros(len(records), dtype=np.int64)
    for code in np.unique(records["group"]).tolist():
        mine = records["group"] == code
        out[mine] = files.number(GROUPS[code].split, records["key"][mine])
    return out


def _order(ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
    """Write the files of a partition. If it has several, its lines go to a temporary file for each first."""
    files, partition = Files(spec["chunks"]), spec["partition"]
    written: dict[int, int] = {}
    first = partition * files.each
    numbers = range(first, min(first + files.each, files.count))
    with ExitStack() as stack:
        pieces = {n: stack.enter_context(tempfile.TemporaryFile(dir=ctx.folder / "scratch")) for n in numbers}
        for records, payload in read_partition(ctx, "deal", "lines", partition, LINE, payload=True):
            _spread(records, payload, _numbers(files, records), pieces)
        for number, piece in pieces.items():
            records, lines = _sorted(piece)
            if len(records):
                with ctx.file(files.name(number)) as out, compressed(out.path, "zst") as put:
                    for line in lines:
                        put(line)
            for code, n in zip(*np.unique(records["group"], return_counts=True), strict=True):
                written[int(code)] = written.get(int(code), 0) + int(n)
            ctx.progress(rows=len(records))
    return {"written": [[code, n] for code, n in sorted(written.items())]}


def _spread(records: np.ndarray, payload: np.ndarray, numbers: np.ndarray, pieces: Mapping[int, IO[bytes]]) -> None:
    """Append records and their lines to the files that they belong to."""
    ends = np.cumsum(records["length"].astype(np.int64))
    for number in np.unique(numbers).tolist():
        mine = np.flatnonzero(numbers == number)
        size = int(records["length"][mine].astype(np.int64).sum())
        pieces[number].write(np.array([len(mine), size], dtype=np.int64).tobytes())
        pieces[number].write(records[mine].tobytes())
        for i in mine.tolist():
            pieces[number].write(payload[ends[i] - records["length"][i] : ends[i]].data)


def _sorted(piece: IO[bytes]) -> tuple[np.ndarray, Iterator[bytes]]:
    """All records of a temporary file by key, and their lines."""
    piece.seek(0)
    records, payloads = [np.empty(0, dtype=LINE)], []
    while head := piece.read(16):
        n, size = np.frombuffer(head, dtype=np.int64).tolist()
        records.append(np.frombuffer(piece.read(n * LINE.itemsize), dtype=LINE))
        payloads.append(piece.read(size))
    whole, data = np.concatenate(records), memoryview(b"".join(payloads))
    ends = np.cumsum(whole["length"].astype(np.int64))
    order = np.lexsort((whole["row"], whole["key"]))
    return whole, (bytes(data[ends[i] - whole["length"][i] : ends[i]]) for i in order.tolist())
