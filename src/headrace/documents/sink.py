"""Write documents as even Parquet shards of small row groups, and the quarantine next to them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.documents.ids import content_ids
from headrace.documents.readers.base import Bad, Lost, lost
from headrace.documents.store import GIVEN, SCHEMA, documents_of
from headrace.flow.task import Out, TaskContext

SHARD_BYTES = 32 << 20  # text and fields of a shard: the unit of work of all later steps
GROUP_BYTES = 8 << 20  # text and fields of a row group: the unit that readers hold in memory
GROUP_ROWS = 1 << 15  # a one-byte document takes 400 bytes while it waits
# On 69 MB of the corpus, level 1 takes 283 ms and 18.3 MB, level 3 402 ms and 15.8 MB, LZ4 218 ms and 27.2 MB; reading
# the texts takes 80 ms, with LZ4 46.
COMPRESSION_LEVEL = 1
_DICTIONARY = ["source", "origin_file", "license", "repo", "language"]
EXAMPLES = 3  # quarantine entries shown in messages
_STATISTICS = ["id", "source", "origin_file", "origin_row"]  # for texts they would only cost time

Row = tuple[bytes, str, str, int, str | None, str | None, str | None, str | None, bytes | None, bytes | None]
"""A document, in column order, without its id; text, meta and turns as UTF-8."""


def table_of(rows: Sequence[Row]) -> pa.Table:
    """A table of :data:`SCHEMA` from at least one row.

    Joins the texts itself: Arrow would validate UTF-8 that Python has just made and move it as its buffer grows.
    """
    texts, *others = zip(*rows, strict=True)
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(text) for text in texts], out=offsets[1:])
    data = b"".join(texts)
    text = pa.LargeStringArray.from_buffers(len(rows), pa.py_buffer(offsets), pa.py_buffer(data))
    ids = content_ids(np.frombuffer(data, dtype=np.uint8), offsets)
    rest = [pa.array(column, field.type) for column, field in zip(others, list(GIVEN)[2:], strict=True)]
    return documents_of(pa.Table.from_arrays([ids, text, *rest], schema=GIVEN))


class Sink:
    """Collects documents and writes them, holding at most one row group in memory.

    Attributes:
        rows: documents in finished row groups.
    """

    def __init__(self, ctx: TaskContext) -> None:
        self._ctx = ctx
        self._held: list[Row] = []
        self._held_bytes = 0
        self._stack = ExitStack()
        self._out: Out | None = None
        self._writer: pq.ParquetWriter | None = None
        self._part, self._shard_bytes = 0, 0
        self.rows = 0

    def add(self, row: Row) -> None:
        """Add a document."""
        size = len(row[0]) + len(row[-2] or b"") + len(row[-1] or b"")
        if self._held and (self._held_bytes + size > GROUP_BYTES or len(self._held) == GROUP_ROWS):
            self._write_group()
        if self._shard_bytes and self._shard_bytes + self._held_bytes + size > SHARD_BYTES:
            self._end_shard()
        self._held.append(row)
        self._held_bytes += size

    def _write_group(self) -> None:
        if self._writer is None:
            self._out = self._stack.enter_context(self._ctx.shard(part=self._part))
            self._writer = self._stack.enter_context(
                pq.ParquetWriter(
                    self._out.path,
                    SCHEMA,
                    compression="zstd",
                    compression_level=COMPRESSION_LEVEL,
                    use_dictionary=_DICTIONARY,
                    write_statistics=_STATISTICS,
                )
            )
        self._writer.write_table(table_of(self._held), row_group_size=max(1, len(self._held)))
        self.rows += len(self._held)
        assert self._out is not None
        self._out.rows += len(self._held)
        self._ctx.progress(len(self._held))
        self._shard_bytes += self._held_bytes
        self._held, self._held_bytes = [], 0

    def _end_shard(self) -> None:
        if self._held:
            self._write_group()
        if self._writer is not None:
            self._stack.close()  # the writer first, then the context that publishes its file
            self._part, self._shard_bytes, self._writer, self._out = self._part + 1, 0, None, None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._end_shard()
        else:
            self._stack.__exit__(kind, error, trace)


class Quarantine:
    """Bad rows and losses, as JSON Lines ``{"source", "file", "line", "error", "excerpt"}``; no file if there are none.

    ``line`` counts from 1, as in editors; in formats without lines it is the number of the record.

    Attributes:
        rows: bad rows.
        first: the first few entries for bad rows.
        lost_rows: rows that damaged files promised but did not deliver.
        lost_bytes: bytes of damaged files that were not read, if rows are not known.
        losses: the first few entries for damaged files.
    """

    def __init__(self, ctx: TaskContext, source: str) -> None:
        self._ctx, self._source = ctx, source
        self._stack = ExitStack()
        self._file: Any = None
        self.rows = self.lost_rows = self.lost_bytes = 0
        self.first: list[dict[str, Any]] = []
        self.losses: list[dict[str, Any]] = []

    def add(self, file: str, bad: Bad | Lost) -> None:
        """Write an entry for a bad row or a loss."""
        if self._file is None:
            out = self._stack.enter_context(self._ctx.file("quarantine/{task}.jsonl"))
            self._file = self._stack.enter_context(out.path.open("wb"))
        error = bad.error
        if isinstance(bad, Lost):
            self.lost_rows += bad.rows
            self.lost_bytes += bad.bytes
            error += f"; {lost(bad.rows, bad.bytes)} lost"
            kept = self.losses
        else:
            self.rows += bad.rows
            kept = self.first
            error += f"; so are {bad.rows - 1:,} rows behind it" if bad.rows > 1 else ""
        entry = {"source": self._source, "file": file, "line": bad.row + 1, "error": error, "excerpt": bad.excerpt}
        safe = {key: _clean(value) for key, value in entry.items()}
        self._file.write(orjson.dumps(safe, option=orjson.OPT_APPEND_NEWLINE))
        if len(kept) < EXAMPLES:
            kept.append(safe)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


def _clean(value: Any) -> Any:
    """Text without lone surrogates, which JSON in UTF-8 cannot represent."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value
