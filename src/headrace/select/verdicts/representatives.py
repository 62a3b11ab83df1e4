"""Which of a group of copies to keep: by source priority, then length, then key.

Members of a component meet in one partition. They are streamed twice: once to find each group's best, once to determine
which are copies of which. Only the best are held, so a component of any size takes little memory. If candidates are
verified, several of a group may be kept, in the same order of preference: :mod:`headrace.select.verdicts.greedy`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.flow.keys import keyed, salt
from headrace.flow.slices import gather
from headrace.select.verdicts.groups import best_of_groups, find_groups, index_groups

# Members processed together: for a partition's slices of a few hundred, starting costs more than processing.
GATHERED_BYTES = 4 << 20

_FIELDS = [
    ("component", "<u8"),  # smallest row of the component
    ("group", "<u8"),  # what one document is kept of: the component, or the smallest row with the same content id
    ("row", "<u8"),
    ("high", "<u8"),  # the content id
    ("low", "<u8"),
    ("bytes", "<i8"),  # length of the text
    ("key", "<u8"),
    ("size", "<u8"),  # documents in the component
    ("origin_row", "<i8"),
    ("source", "<u2"),
    ("priority", "<u2"),
    ("split", "u1"),  # REFERENCE for a reference document
    ("barred", "u1"),  # whether another verdict removes it
    ("length", "<u4"),  # of the payload: its file's name
]
MEMBER = np.dtype({"names": [n for n, _ in _FIELDS], "formats": [f for _, f in _FIELDS], "itemsize": 88})
"""A document that has duplicates, as sent to the partition of its component, in eleven words."""

REFERENCE = 3
"""The split of a reference document, which is not part of the corpus: it comes first, and is never removed."""

Chunks = Iterable[tuple[npt.NDArray[np.void], npt.NDArray[np.uint8]]]
"""Records of :data:`MEMBER` with their payload."""


@dataclass(frozen=True)
class Members:
    """Some members, with each one's file name.

    Attributes:
        records: MEMBER[n].
        files: uint8[sum of lengths], UTF-8.
    """

    records: npt.NDArray[np.void]
    files: npt.NDArray[np.uint8]

    @staticmethod
    def none() -> Members:
        """No members."""
        return Members(np.empty(0, dtype=MEMBER), np.empty(0, dtype=np.uint8))

    def take(self, which: npt.NDArray[np.int64]) -> Members:
        """The members at some indices, in that order."""
        lengths = self.records["length"].astype(np.int64)
        starts = np.cumsum(lengths) - lengths
        return Members(self.records[which], gather(self.files, starts[which], lengths[which]))

    def join(self, other: Members) -> Members:
        """These members followed by others."""
        return Members(np.concatenate([self.records, other.records]), np.concatenate([self.files, other.files]))


def describe(
    documents: pa.RecordBatch,
    content: npt.NDArray[np.uint64],
    duplicates: pa.Table,
    filtered: pa.RecordBatch,
    row: int,
    rank: npt.NDArray[np.uint16],
    by_component: bool,
    seed: int,
) -> tuple[npt.NDArray[np.int64], Members]:
    """The documents of a batch that have duplicates, as members.

    Args:
        documents: with the columns origin_file and origin_row.
        content: their content ids, uint64[n, 2].
        duplicates: their rows in the duplicates sidecar.
        filtered: each document's source (index into the recipe's sources), split and reason (null if not removed).
        row: global row number of the first.
        rank: uint16[sources], the order of preference: the smallest first.
        by_component: whether one document is kept per component rather than per content id.
        seed: the recipe's seed, which keys the choice among equals.

    Returns:
        Their indices in the batch, and the members.
    """
    from headrace.documents.store import text_buffers

    have = np.flatnonzero(duplicates.column("component").is_valid().to_numpy())
    found, which = duplicates.take(have).combine_chunks(), pa.array(have)
    ids = content[have]
    records = np.empty(len(have), dtype=MEMBER)
    records["row"] = row + have
    records["component"] = found.column("component").to_numpy()
    exact = found.column("exact_of")
    first = np.where(exact.is_valid().to_numpy(), exact.fill_null(0).to_numpy(), records["row"])
    records["group"] = records["component"] if by_component else first
    records["high"], records["low"] = ids[:, 0], ids[:, 1]
    records["bytes"], records["size"] = found.column("bytes").to_numpy(), found.column("size").to_numpy()
    records["key"] = keyed(salt(seed, "elect"), ids)
    records["origin_row"] = documents.column("origin_row").take(which).to_numpy()
    records["source"] = filtered.column("source").take(which).to_numpy()
    records["priority"] = rank[records["source"]]
    records["split"] = filtered.column("split").take(which).to_numpy()
    records["barred"] = filtered.column("reason").take(which).is_valid().to_numpy(zero_copy_only=False)
    files, offsets = text_buffers(documents.column("origin_file").take(which).cast(pa.large_string()))
    records["length"] = np.diff(offsets)
    return have, Members(records, files)


def rebatched(chunks: Chunks) -> Chunks:
    """The same members in larger chunks, each of at least ``GATHERED_BYTES`` except the last."""
    held: list[Members] = []
    size = 0
    for records, files in chunks:
        held.append(Members(records, files))
        size += records.nbytes + files.nbytes
        if size >= GATHERED_BYTES:
            yield _together(held)
            held, size = [], 0
    if held:
        yield _together(held)


def _together(parts: list[Members]) -> tuple[npt.NDArray[np.void], npt.NDArray[np.uint8]]:
    if len(parts) == 1:
        return parts[0].records, parts[0].files
    return np.concatenate([part.records for part in parts]), np.concatenate([part.files for part in parts])


def find_representatives(chunks: Chunks) -> Members:
    """The member to keep of each group, among those that no other verdict removes.

    The source with the highest priority comes first, then the longest text, the smallest key, the smallest row: a total
    order, so neither chunks nor their order matter.

    Returns:
        The representatives in ascending order of group; a group with only barred members has none.
    """
    found, fresh, merged = [Members.none()], 0, 0
    for records, files in rebatched(chunks):
        found.append(Members(records, files).take(best_of_groups(records)))
        fresh += len(found[-1].records)
        if fresh > merged:  # merge whenever they have doubled, so that each group is processed only a few times
            found = [_best_of(found)]
            fresh, merged = 0, len(found[0].records)
    best = _best_of(found)
    return best.take(np.argsort(best.records["group"]))


def _best_of(parts: list[Members]) -> Members:
    together = Members(*_together(parts))
    return together.take(best_of_groups(together.records))


def free_in_order(chunks: Chunks) -> npt.NDArray[np.void]:
    """The members that no other verdict removes, MEMBER[n], by group, and within each in order of preference."""
    parts = [np.empty(0, dtype=MEMBER), *(records[records["barred"] == 0] for records, _ in chunks)]
    records = np.concatenate(parts)
    return records[_preference(records)]


def by_row(chunks: Chunks, rows: npt.NDArray[np.uint64]) -> Members:
    """The members of some rows, uint64[n] in ascending order, in that order."""
    found = [Members.none()]
    for records, files in chunks:
        at = np.minimum(np.searchsorted(rows, records["row"]), max(0, len(rows) - 1))
        mine = np.flatnonzero(rows[at] == records["row"]) if len(rows) else np.empty(0, dtype=np.int64)
        found.append(Members(records, files).take(mine))
    together = Members(np.concatenate([m.records for m in found]), np.concatenate([m.files for m in found]))
    return together.take(np.argsort(together.records["row"]))


def _preference(r: npt.NDArray[np.void]) -> npt.NDArray[np.int64]:
    """The order of groups, and within each the order of preference."""
    return np.lexsort([r["row"], r["key"], -r["bytes"], r["priority"], r["group"]])


@dataclass(frozen=True)
class Removed:
    """Copies: documents removed in favor of another.

    Attributes:
        row: uint64[n].
        source: uint16[n], index into the recipe's sources.
        representative: int64[n], index of the document kept instead.
        exact: bool[n], whether the representative's content id is the same.
    """

    row: npt.NDArray[np.uint64]
    source: npt.NDArray[np.uint16]
    representative: npt.NDArray[np.int64]
    exact: npt.NDArray[np.bool_]


def find_copies(chunks: Chunks, representatives: Members) -> Iterator[Removed]:
    """Which documents are removed as copies of which, chunk by chunk.

    Args:
        chunks: all members of the partition.
        representatives: from :func:`find_representatives`, for the same partition.
    """
    best = representatives.records
    groups = np.ascontiguousarray(best["group"])
    slots = index_groups(groups)
    for records, _ in rebatched(chunks):
        free = np.flatnonzero((records["barred"] == 0) & (records["split"] != REFERENCE))
        representative = find_groups(records["group"][free], groups, slots)
        others = best["row"][representative] != records["row"][free]
        copies, representative = free[others], representative[others]
        row, high, low = (records[name][copies] for name in ("row", "high", "low"))
        exact = (best["high"][representative] == high) & (best["low"][representative] == low)
        yield Removed(row, records["source"][copies], representative, exact)
