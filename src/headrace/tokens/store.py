"""The token store on disk: one Arrow IPC file per shard, with one record batch each, memory-mapped without a copy.

A file does not refer to the whole: rows count within its documents shard and sources are given by name, so it stays
valid when other documents are added or removed.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from headrace.flow.artifact import Artifact


class TokenShard(NamedTuple):
    """One shard of the token store; tokens, offsets, splits and sizes are views of the mapped file.

    Attributes:
        rows: uint64[n]: row numbers of the documents, ascending: in the whole documents artifact when returned by
            :func:`open_shard`, within their shard in the file.
        source: uint16[n]: index into the manifest's ``sources``, or into the file's names.
        split: uint8[n]: 0 train, 1 validation, 2 test.
        bytes: int64[n]: UTF-8 bytes of each text.
        offsets: int64[n + 1]; document i is ``tokens[offsets[i]:offsets[i + 1]]``.
        tokens: uint16 or uint32 [n_tokens].
    """

    rows: np.ndarray
    source: np.ndarray
    split: np.ndarray
    bytes: np.ndarray
    offsets: np.ndarray
    tokens: np.ndarray


def schema(dtype: np.dtype) -> pa.Schema:
    """The columns of the token store for a token dtype."""
    return pa.schema(
        {
            "row": pa.uint64(),
            "source": pa.dictionary(pa.uint16(), pa.string()),
            "split": pa.uint8(),
            "bytes": pa.int64(),
            "tokens": pa.large_list(pa.field("item", pa.from_numpy_dtype(dtype), nullable=False)),
        }
    )


def write_shard(path: Path, shard: TokenShard, names: list[str]) -> None:
    """Write a shard; equal arrays give equal bytes.

    Args:
        path: the file.
        shard: rows within the documents shard, sources as indices into ``names``.
        names: the source names.
    """
    columns = schema(shard.tokens.dtype)
    values = pa.array(shard.tokens)
    lists = pa.LargeListArray.from_arrays(pa.array(shard.offsets), values, type=columns.field("tokens").type)
    source = pa.DictionaryArray.from_arrays(pa.array(shard.source), pa.array(names, pa.string()))
    batch = pa.record_batch(
        [pa.array(shard.rows), source, pa.array(shard.split), pa.array(shard.bytes), lists], schema=columns
    )
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, columns) as writer:
        writer.write_batch(batch)


def read_shard(path: Path) -> tuple[TokenShard, list[str]]:
    """Map a token store file: returns what :func:`write_shard` was given."""
    with pa.memory_map(str(path)) as source:
        batch = pa.ipc.open_file(source).get_batch(0)
    lists, sources = batch.column("tokens"), batch.column("source")
    shard = TokenShard(
        rows=batch.column("row").to_numpy(zero_copy_only=True),
        source=sources.indices.to_numpy(zero_copy_only=True),
        split=batch.column("split").to_numpy(zero_copy_only=True),
        bytes=batch.column("bytes").to_numpy(zero_copy_only=True),
        offsets=lists.offsets.to_numpy(zero_copy_only=True),
        tokens=lists.values.to_numpy(zero_copy_only=True),
    )
    return shard, sources.dictionary.to_pylist()


def open_shard(tokens: Artifact, index: int) -> TokenShard:
    """Map a shard of the token store, with rows and sources numbered globally.

    Args:
        tokens: a tokens artifact.
        index: the shard's index; it holds the kept documents of the documents shard with the same index.
    """
    shard, names = read_shard(tokens.shard_path(index))
    extra = tokens.manifest.extra
    number = np.array([extra["sources"].index(name) for name in names], dtype=np.uint16)
    return shard._replace(rows=shard.rows + np.uint64(extra["first_rows"][index]), source=number[shard.source])
