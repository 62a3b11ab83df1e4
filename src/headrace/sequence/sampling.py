"""Which copies of which documents of a source a stage takes: slices, whole passes, and where the last pass ends.

Each source has one sampling order per stage, by keyed hash. A fraction of an epoch is an interval of the unit line on
which the keys lie; a weight ends at a document (:mod:`headrace.sequence.weigh`). A group of files is taken or left as a
whole, like a document.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from headrace.flow.keys import keyed, salt, unit
from headrace.sequence.corpus import ShardDocuments
from headrace.sequence.epochs import ResolvedSource
from headrace.sequence.fim import PLAIN, draw
from headrace.sequence.layout import REWRITTEN
from headrace.sequence.lengths import within
from headrace.sequence.parameters import SequenceParameters

CHAT = 3


class End(NamedTuple):
    """Where a weighted source ends.

    Attributes:
        copies: passes started.
        key: the sampling key of the last document in the last pass.
        row: its document row; documents with equal keys are ordered by row.
    """

    copies: int
    key: int
    row: int


def in_slice(sequence: SequenceParameters, held: ShardDocuments, take: ResolvedSource) -> np.ndarray:
    """The documents of a source's slice that are good enough and of the lengths taken: int64[n], their indices in the
    shard, ascending."""
    shard, (low, high) = held.shard, take.slice
    mine = (shard.source == held.sources.index(take.name)) & (shard.split == held.split)
    mine &= held.good
    if take.lengths is not None:
        mine &= within(held.lengths, take.lengths)
    inside = np.flatnonzero(mine)
    if (low, high) != (0.0, 1.0):
        # The stage is not part of this salt: what one stage slices away is what another may take.
        place = unit(keyed(salt(sequence.seed, "slice"), held.units[inside]))
        inside = inside[(low <= place) & (place < high)]
    return inside


def sampling_keys(sequence: SequenceParameters, held: ShardDocuments, at: np.ndarray) -> np.ndarray:
    """The order in which a fractional pass takes documents: uint64[n]."""
    return keyed(salt(sequence.draws, "epoch", sequence.stage), held.units[at])


def sampled(
    sequence: SequenceParameters, held: ShardDocuments, take: ResolvedSource, ends: Mapping[str, End]
) -> list[tuple[int, np.ndarray]]:
    """The copies that a stage takes of a source, and for each int64[n] indices in the shard."""
    inside = in_slice(sequence, held, take)
    keys = sampling_keys(sequence, held, inside)
    if take.wanted is None:
        last = unit(keys) < take.share(take.copies - 1)
        copies = take.copies
    else:
        copies, key, row = ends[take.key]
        last = (keys < np.uint64(key)) | ((keys == np.uint64(key)) & (held.shard.rows[inside] <= np.uint64(row)))
    return [*((copy, inside) for copy in range(copies - 1)), (copies - 1, inside[last])]


def kinds(
    sequence: SequenceParameters, held: ShardDocuments, take: ResolvedSource, at: np.ndarray, copy: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """The kind of each document in a copy: uint8[n], and float64[n, 2] where fill-in-the-middle cuts it.

    Files that get a header are :data:`~headrace.sequence.layout.REWRITTEN`.
    """
    fim = sequence.section.sources[take.name].fim
    if take.name in sequence.chat_sources:
        return np.full(len(at), CHAT, dtype=np.uint8), None
    kind, cuts = np.full(len(at), PLAIN, dtype=np.uint8), None
    if fim is not None and sequence.section.fim_level == "document":
        kind, cuts = draw(held.ids[at], salt(sequence.draws, "fim", sequence.stage, copy), fim.rate, fim.spm)
        offsets = held.shard.offsets
        kind = np.where(offsets[at + 1] > offsets[at], kind, PLAIN).astype(np.uint8)
    if sequence.heads(take.name):
        kind[held.grouped[at]] += REWRITTEN
    return kind, cuts


def named(sequence: SequenceParameters, held: ShardDocuments, take: ResolvedSource, at: np.ndarray, copy: int) -> Any:
    """bool[n]: which files are in groups that get the names of repository and files in a copy."""
    keys = keyed(salt(sequence.draws, "metadata", sequence.stage, copy), held.units[at])
    return unit(keys) < sequence.groups[take.name].metadata


def changes(sequence: SequenceParameters, name: str) -> bool:
    """Whether a stage re-encodes documents of a source."""
    fim = sequence.section.sources[name].fim is not None and sequence.section.fim_level == "document"
    return name in sequence.chat_sources or fim or sequence.heads(name)
