"""How many documents of each source were kept and removed: counted per shard, added up, and checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.flow.artifact import ConservationError
from headrace.select.verdicts.columns import whole
from headrace.select.verdicts.splits import SPLITS


def tally(
    source: pa.ChunkedArray, reason: pa.ChunkedArray, split: pa.ChunkedArray, sources: Sequence[str]
) -> list[dict[str, Any]]:
    """The number of documents for each source, reason and split that occur together."""
    reasons = whole(reason).dictionary_encode()
    names = [*reasons.dictionary.to_pylist(), None]
    shape = (len(sources), len(names), len(SPLITS))
    code = reasons.indices.fill_null(len(names) - 1).to_numpy().astype(np.int64)
    code += source.to_numpy().astype(np.int64) * shape[1]
    code = code * shape[2] + split.to_numpy()
    counts = np.bincount(code, minlength=int(np.prod(shape))).reshape(shape)
    return [
        {"source": sources[i], "reason": names[j], "split": SPLITS[k], "count_all": int(counts[i, j, k])}
        for i, j, k in np.argwhere(counts).tolist()
    ]


def add_up(
    results: Iterable[Mapping[str, Any]], documents: Mapping[str, Any], sources: Sequence[str], order: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The counts of each source: ``{"documents", "kept", "removed": {reason: n}, "splits": {split: n}}``.

    Args:
        results: one per shard, with the result of :func:`tally` as ``"counts"``.
        documents: document counts by source.
        sources: the names of sources.
        order: all reasons, in the order to list them.

    Raises:
        ConservationError: kept and removed documents do not add up for a source, or a reason is unknown.
    """
    removed: dict[str, dict[str, int]] = {source: {} for source in sources}
    splits = {source: dict.fromkeys(SPLITS, 0) for source in sources}
    for result in results:
        for group in result["counts"]:
            into, name = splits[group["source"]], group["split"]
            if group["reason"] is not None:
                into, name = removed[group["source"]], group["reason"]
            into[name] = into.get(name, 0) + group["count_all"]
    counts = {}
    for source in sources:
        there = documents.get(source, {}).get("documents", 0)
        gone = {reason: removed[source][reason] for reason in order if reason in removed[source]}
        kept = sum(splits[source].values())
        if there != kept + sum(gone.values()) or len(gone) != len(removed[source]):
            raise ConservationError(f"{source}: {there} documents, but {kept} kept and {gone} removed")
        counts[source] = {"documents": there, "kept": kept, "removed": gone, "splits": splits[source]}
    return counts


def pairs(
    matrices: Iterable[list[list[int]]],
    reason: str,
    counts: Mapping[str, Mapping[str, Any]],
    others: Sequence[str | int] | None = None,
    name: str = "kept",
) -> list[dict[str, Any]]:
    """A matrix of removals as a list of ``{"removed", "kept", "documents"}``, by the sources of both documents.

    Args:
        matrices: one per partition, from :func:`headrace.select.verdicts.deduplication.deduplicate`.
        reason: the reason they count.
        counts: from :func:`add_up`; its sources are those of the matrices.
        others: what the matrices' columns stand for, if not the sources.
        name: the key for ``others``, instead of "kept".

    Raises:
        ConservationError: the totals differ from those of the shards.
    """
    sources = list(counts)
    columns = sources if others is None else others
    total = np.sum([np.zeros((len(sources), len(columns)), dtype=np.int64), *map(np.asarray, matrices)], axis=0)
    for source, row in zip(sources, total, strict=True):
        if int(row.sum()) != counts[source]["removed"].get(reason, 0):
            raise ConservationError(f"{source}: {int(row.sum())} removed as {reason}, counted otherwise elsewhere")
    return [
        {"removed": sources[i], name: columns[j], "documents": int(total[i, j])} for i, j in np.argwhere(total).tolist()
    ]
