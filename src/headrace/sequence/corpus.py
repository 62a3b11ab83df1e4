"""What a sequence needs to know of its inputs beside the tokens themselves: documents' ids, sources' counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headrace.flow.artifact import Artifact
from headrace.flow.keys import parse_ids
from headrace.flow.task import TaskContext
from headrace.sequence.epochs import SourceCount
from headrace.sequence.taking import Held
from headrace.tokens.store import open_shard

if TYPE_CHECKING:
    from headrace.sequence.step import Sequence


def document_ids(documents: Artifact, shard: int, rows: np.ndarray) -> np.ndarray:
    """The ids of some documents of a shard.

    Args:
        documents: the documents artifact.
        shard: which shard.
        rows: dense documents rows, all in that shard.

    Returns:
        uint64[n, 2].
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(documents.shard_path(shard)) as file:
        column = file.read(columns=["id"], use_threads=False).column("id")
    return parse_ids(column)[rows.astype(np.int64) - int(documents.row_offsets[shard])]


def hold(step: Sequence, ctx: TaskContext, number: int) -> Held:
    """A shard of the token store, mapped, with the ids of its documents."""
    tokens = ctx.input("tokens")
    shard = open_shard(tokens, number)
    ids = document_ids(ctx.input("documents"), number, shard.rows)
    return Held(shard, ids, tokens.manifest.extra["sources"], tokens.manifest.extra["splits"].index(step.split))


def counts_of(tokens: Artifact, split: str) -> dict[str, SourceCount]:
    """What the token store holds of each source in a split."""
    counts = {}
    for source, splits in tokens.manifest.counts.items():
        held = splits.get(split, {})
        counts[source] = SourceCount(held.get("tokens", 0), held.get("documents", 0))
    return counts
