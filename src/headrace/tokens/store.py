"""The token store on disk: one Arrow IPC file a shard, one record batch each, read by memory map without a copy."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from headrace.flow.artifact import Artifact


class TokenShard(NamedTuple):
    """One shard of the token store, as views of the mapped file.

    Attributes:
        rows: uint64[n]: row numbers of the documents in the whole ``documents`` artifact, ascending.
        source: uint16[n]: index into the manifest's ``sources``.
        split: uint8[n]: 0 train, 1 validation, 2 test.
        offsets: int64[n + 1]; document i is ``tokens[offsets[i]:offsets[i + 1]]``.
        tokens: uint16 or uint32 [n_tokens].
    """

    rows: np.ndarray
    source: np.ndarray
    split: np.ndarray
    offsets: np.ndarray
    tokens: np.ndarray


def schema(dtype: np.dtype) -> pa.Schema:
    """The columns of the token store for a width of token."""
    return pa.schema(
        {
            "row": pa.uint64(),
            "source": pa.uint16(),
            "split": pa.uint8(),
            "tokens": pa.large_list(pa.field("item", pa.from_numpy_dtype(dtype), nullable=False)),
        }
    )


def write_shard(path: Path, shard: TokenShard) -> None:
    """Write a shard; the same arrays give the same bytes."""
    columns = schema(shard.tokens.dtype)
    values = pa.array(shard.tokens)
    lists = pa.LargeListArray.from_arrays(pa.array(shard.offsets), values, type=columns.field("tokens").type)
    batch = pa.record_batch(
        [pa.array(shard.rows), pa.array(shard.source), pa.array(shard.split), lists], schema=columns
    )
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, columns) as writer:
        writer.write_batch(batch)


def open_shard(tokens: Artifact, index: int) -> TokenShard:
    """Map a shard of the token store.

    Args:
        tokens: an artifact of kind ``tokens``.
        index: which shard; it holds the kept documents of the ``documents`` shard of the same number.
    """
    with pa.memory_map(str(tokens.shard_path(index))) as source:
        batch = pa.ipc.open_file(source).get_batch(0)
    lists = batch.column("tokens")
    return TokenShard(
        rows=batch.column("row").to_numpy(zero_copy_only=True),
        source=batch.column("source").to_numpy(zero_copy_only=True),
        split=batch.column("split").to_numpy(zero_copy_only=True),
        offsets=lists.offsets.to_numpy(zero_copy_only=True),
        tokens=lists.values.to_numpy(zero_copy_only=True),
    )
