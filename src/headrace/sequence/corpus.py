"""What a shard of the token store holds for a stage: documents and their ids."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.documents.store import read_columns
from headrace.flow.artifact import Artifact
from headrace.flow.keys import parse_ids
from headrace.flow.task import TaskContext
from headrace.sequence.best import taken
from headrace.sequence.group_lengths import group_lengths
from headrace.sequence.grouping.step import groups_of
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
        units: uint64[n, 2], the ids of what is sampled: of groups, or of documents that stand alone.
        grouped: bool[n], whether it is in a group.
        ranks: uint32[n], its place there, 0 if it has none.
        lengths: int64[n], the tokens of its training document, as far as the stage takes documents by length.
    """

    shard: TokenShard
    ids: np.ndarray
    sources: list[str]
    split: int
    good: np.ndarray
    units: np.ndarray
    grouped: np.ndarray
    ranks: np.ndarray
    lengths: np.ndarray


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


def hold(sequence: SequenceParameters, ctx: TaskContext, number: int, groups_measured: bool = True) -> ShardDocuments:
    """A shard of the token store, memory-mapped, with the ids of its documents.

    Args:
        sequence: the stage's parameters.
        ctx: the task.
        number: the shard's number.
        groups_measured: whether the lengths of groups are known, if the stage takes documents by length.
    """
    tokens = ctx.input("tokens")
    shard = open_shard(tokens, number)
    documents = ctx.input("documents")
    ids = document_ids(documents, number, shard.rows)
    units, grouped, ranks = ids, np.zeros(len(ids), dtype=bool), np.zeros(len(ids), dtype=np.uint32)
    if sequence.groups:
        groups = groups_of(read_columns(ctx.input("groups").shard_path(number)))
        inside = shard.rows.astype(np.int64) - int(documents.row_offsets[number])
        grouped, ranks = groups.grouped[inside], groups.ranks[inside]
        units = np.where(grouped[:, None], groups.groups[inside], ids)
    extra = tokens.manifest.extra
    split = extra["splits"].index(sequence.split)
    good = taken(sequence, ctx, number, shard)
    lengths = np.diff(shard.offsets)
    if sequence.by_length and groups_measured and grouped.any():
        most = sequence.limits(extra["sources"])[shard.source[grouped]]
        lengths[grouped] = np.minimum(group_lengths(ctx, number, units[grouped], lengths[grouped]), most)
    return ShardDocuments(shard, ids, extra["sources"], split, good, units, grouped, ranks, lengths)
