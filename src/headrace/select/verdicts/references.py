"""Reference documents among a partition's members: they come before the corpus, and are never removed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.documents.store import read_columns, read_rows, text_buffers
from headrace.flow.exchange import Spill
from headrace.flow.keys import keyed, salt
from headrace.flow.task import TaskContext
from headrace.select.verdicts.partitions import spread
from headrace.select.verdicts.representatives import MEMBER, REFERENCE, Members
from headrace.select.verdicts.verification import TEXT


@dataclass(frozen=True)
class Place:
    """The position of a shard's documents among all.

    Attributes:
        first: the number of the shard's first document, as in :data:`headrace.select.duplicates.step.REFERENCE`.
        source: the index of their first source among all sources.
        sources: the names of their sources.
        priority: their rank, before all others.
    """

    first: int
    source: int
    sources: tuple[str, ...]
    priority: int


def send(
    ctx: TaskContext,
    found: Path,
    documents: Path,
    place: Place,
    by_component: bool,
    seed: int,
    with_text: bool,
    partitions: int,
) -> int:
    """Send a shard's reference documents that share a component with the corpus to its partition.

    Args:
        ctx: the task.
        found: the duplicates found, :data:`headrace.select.duplicates.step.REFERENCE`.
        documents: the shard of documents.
        place: the shard's position.
        by_component: whether one document is kept per component rather than per content id.
        seed: the recipe's seed, which keys the choice among equals.
        with_text: whether to send their texts too.
        partitions: the number of partitions.

    Returns:
        The bytes of the longest of these texts.
    """
    table = read_columns(found)
    columns = ["source", "origin_file", "origin_row", *(["text"] if with_text else [])]
    rows = table.column("row").to_numpy().astype(np.int64) - place.first
    at = longest = 0
    with (
        Spill(ctx, "members", MEMBER, partitions, payload=True) as members,
        Spill(ctx, "texts", TEXT, partitions, payload=True) as texts,
    ):
        for told in read_rows(documents, rows, columns):  # one row group's
            some = _members(table.slice(at, len(told)), told, place, by_component, seed)
            text = told.column("text").combine_chunks() if with_text else None
            longest = max(longest, spread(some, np.arange(len(told)), text, members, texts))
            at += len(told)
            ctx.progress(len(told))
    return longest


def _members(found: pa.Table, documents: pa.Table, place: Place, by_component: bool, seed: int) -> Members:
    records = np.zeros(len(found), dtype=MEMBER)
    for name in ("row", "component", "high", "low", "bytes", "size"):
        records[name] = found.column(name).to_numpy()
    records["group"] = found.column("component" if by_component else "exact_of").to_numpy()
    records["key"] = keyed(salt(seed, "elect"), np.stack([records["high"], records["low"]], axis=1))
    records["origin_row"] = documents.column("origin_row").to_numpy()
    named = pc.index_in(documents.column("source"), pa.array(place.sources, pa.string())).to_numpy()
    records["source"] = place.source + named
    records["priority"], records["split"] = place.priority, REFERENCE
    files, offsets = text_buffers(documents.column("origin_file").combine_chunks().cast(pa.large_string()))
    records["length"] = np.diff(offsets)
    return Members(records, files)
