"""Read the documents artifact: in order with bounded memory, or arbitrary rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from headrace.flow.artifact import Artifact

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("origin_file", pa.string(), nullable=False),
        pa.field("origin_row", pa.int64(), nullable=False),
        pa.field("license", pa.string()),
        pa.field("repo", pa.string()),
        pa.field("path", pa.string()),
        pa.field("language", pa.string()),
        pa.field("meta", pa.string()),
        pa.field("turns", pa.string()),
    ]
)
"""The columns of documents. ``text`` has int64 offsets, since a batch may exceed 2 GB; ``bytes`` is the size of each
text, so that whoever needs only sizes reads no text."""

GIVEN = SCHEMA.remove(SCHEMA.get_field_index("bytes"))
"""The columns that are not derived from others."""


def documents_of(table: pa.Table) -> pa.Table:
    """A table (or record batch) with :data:`SCHEMA`, from one with :data:`GIVEN`."""
    import pyarrow.compute as pc

    at = SCHEMA.get_field_index("bytes")
    return table.add_column(at, SCHEMA.field(at), pc.binary_length(table.column("text")))


def read_columns(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Some columns of a Parquet shard, or all.

    ``pq.read_table`` does the same by way of a scan of data sets: 5 ms more for each file, and 0.4 s for its imports.

    Args:
        path: the shard, or any Parquet file of ours.
        columns: names of the columns, None for all.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, pre_buffer=False) as file:
        return file.read(columns=None if columns is None else list(columns), use_threads=False)


def read_batches(path: Path, columns: Sequence[str] | None, max_bytes: int) -> Iterator[pa.RecordBatch]:
    """Stream a documents shard (or a sidecar's) as record batches in row order.

    One row group is decoded at a time (at most 8 MB of text, or one larger document), so memory does not depend on the
    shard's size.

    Args:
        path: a Parquet shard.
        columns: names of the columns to read, None for all.
        max_bytes: a batch holds at most this many bytes, unless a single row is larger.
    """
    import pyarrow.parquet as pq

    names = list(columns) if columns is not None else None
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=names, use_threads=False).combine_chunks()
            for batch in table.to_batches():
                yield from _within(batch, max_bytes)


def _within(batch: pa.RecordBatch, max_bytes: int) -> Iterator[pa.RecordBatch]:
    """Slices of a batch of at most ``max_bytes`` each, by halving."""
    if batch.num_rows <= 1 or batch.nbytes <= max_bytes:
        if batch.num_rows:
            yield batch
        return
    half = batch.num_rows // 2
    yield from _within(batch.slice(0, half), max_bytes)
    yield from _within(batch.slice(half), max_bytes)


def text_buffers(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The text of an array as flat buffers, without a copy.

    Args:
        array: large_string or large_binary without nulls, possibly a slice.

    Returns:
        data: uint8[n_bytes], read-only, exactly the text of these documents.
        offsets: int64[n_docs + 1] into ``data``, starting at 0.

    Raises:
        TypeError: the array's offsets are not int64.
    """
    if not (pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type)):
        raise TypeError(f"text_buffers needs large_string, not {array.type}")
    _, offset_buffer, data_buffer = array.buffers()
    if offset_buffer is None or len(array) == 0:
        return np.empty(0, dtype=np.uint8), np.zeros(len(array) + 1, dtype=np.int64)
    offsets = np.frombuffer(offset_buffer, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    if data_buffer is None:
        return np.empty(0, dtype=np.uint8), np.zeros(len(array) + 1, dtype=np.int64)
    data = np.frombuffer(data_buffer, dtype=np.uint8)[offsets[0] : offsets[-1]]
    return data, offsets - offsets[0] if offsets[0] else offsets


def fetch(artifact: Artifact, rows: np.ndarray | Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
    """Arbitrary rows of a documents artifact (or a sidecar), in the order requested; rows may repeat.

    Only the row groups that contain them are read, each once.

    Args:
        artifact: a published artifact of Parquet shards.
        rows: global row numbers, int64[n].
        columns: names of the columns, None for all.

    Raises:
        IndexError: a row does not exist.
    """
    wanted = np.asarray(rows, dtype=np.int64)
    if len(wanted) and (wanted.min() < 0 or wanted.max() >= artifact.rows):
        raise IndexError(f"rows {wanted.min()} to {wanted.max()} of an artifact of {artifact.rows} rows")
    unique, back = np.unique(wanted, return_inverse=True)
    pieces: list[pa.Table] = []
    shards = np.searchsorted(artifact.row_offsets, unique, side="right") - 1
    for shard in np.unique(shards).tolist():
        inside = unique[shards == shard] - artifact.row_offsets[shard]
        pieces += read_rows(artifact.shard_path(shard), inside, columns)
    if not pieces:
        schema = SCHEMA if columns is None else pa.schema([SCHEMA.field(n) for n in columns if n in SCHEMA.names])
        return schema.empty_table()
    return pa.concat_tables(pieces).take(pa.array(back.reshape(-1))).combine_chunks()


def read_rows(path: Path, rows: np.ndarray, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    """Some rows of a shard, one row group at a time; other row groups are not read.

    Args:
        path: a Parquet shard.
        rows: int64[n], rows of the shard, ascending.
        columns: names of the columns, None for all.
    """
    import pyarrow.parquet as pq

    names = list(columns) if columns is not None else None
    with pq.ParquetFile(path, pre_buffer=False) as file:
        counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        starts = np.cumsum([0, *counts])
        groups = np.searchsorted(starts, rows, side="right") - 1
        for group in np.unique(groups).tolist():
            table = file.read_row_group(group, columns=names, use_threads=False)
            yield table.take(pa.array(rows[groups == group] - starts[group]))
