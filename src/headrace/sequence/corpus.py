"""What a shard of the token store holds for a stage: documents and their ids."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.flow.artifact import Artifact
from headrace.flow.keys import parse_ids
from headrace.flow.task import TaskContext
from headrace.sequence.best import taken
from headrace.sequence.parameters import SequenceParameters
from headrace.tokens.store import TokenShard, open_shard


class ShardDocuments(NamedTuple):
    """What a shard holds for a stage.

    Attributes:
        shard: the shard of the token store.
        ids: uint64[n, 2], the ids of its documents.
        sources: the token store's sources.
        split: index of the split that the stage uses.
        good: bool[n], the documents that are good enough for the stage.
    """

    shard: TokenShard
    ids: np.ndarray
    sources: list[str]
    split: int
    good: np.ndarray


def document_ids(documents: Artifact, shard: int, rows: np.ndarray) -> np.ndarray:
    """The ids of some documents of a shard.

    Args:
        documents: the documents artifact.
        shard: which shard.
        rows: global document rows, all in that shard.

    Returns:
        uint64[n, 2].
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(documents.shard_path(shard)) as file:
        column = file.read(columns=["id"], use_threads=False).column("id")
    return parse_ids(column)[rows.astype(np.int64) - int(documents.row_offsets[shard])]


def hold(sequence: SequenceParameters, ctx: TaskContext, number: int) -> ShardDocuments:
    """A shard of the token store, memory-mapped, with the ids of its documents."""
    tokens = ctx.input("tokens")
    shard = open_shard(tokens, number)
    ids = document_ids(ctx.input("documents"), number, shard.rows)
    extra = tokens.manifest.extra
    good = taken(sequence, ctx, number, shard)
    return ShardDocuments(shard, ids, extra["sources"], extra["splits"].index(sequence.split), good)
