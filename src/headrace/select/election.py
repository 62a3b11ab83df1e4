"""Which of a group of copies is kept: by source priority, then length, then key.

Members of a component meet in one partition. They are streamed twice: once to find the best of each group, once to say
who lost to whom. Only the winners are held, so a component of any size takes no more memory than a small one. Where
candidates are verified, several of a group may be kept, by the same order of preference:
:mod:`headrace.select.greedy`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.flow.exchange import gather
from headrace.flow.keys import keyed, parse_ids, salt

MEMBER = np.dtype(
    [
        ("component", "<u8"),  # smallest row of the component
        ("group", "<u8"),  # what one document is kept of: the component, or the smallest row of the same content id
        ("row", "<u8"),
        ("high", "<u8"),  # the content id
        ("low", "<u8"),
        ("bytes", "<i8"),  # length of the text
        ("key", "<u8"),
        ("size", "<u8"),  # documents in the component
        ("origin_row", "<i8"),
        ("source", "<u2"),
        ("priority", "<u2"),
        ("split", "u1"),
        ("barred", "u1"),  # whether another verdict removes it
        ("length", "<u4"),  # of the payload: the name of the file it came from
    ]
)
"""A document that has duplicates, as it goes to the partition of its component."""

Chunks = Iterable[tuple[npt.NDArray[np.void], npt.NDArray[np.uint8]]]
"""Records of :data:`MEMBER` with their payload."""


@dataclass(frozen=True)
class Members:
    """Some members, with the name of the file that each came from.

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
        """Those at the given positions, in that order."""
        lengths = self.records["length"].astype(np.int64)
        starts = np.cumsum(lengths) - lengths
        return Members(self.records[which], gather(self.files, starts[which], lengths[which]))

    def join(self, other: Members) -> Members:
        """These and then those."""
        return Members(np.concatenate([self.records, other.records]), np.concatenate([self.files, other.files]))

    def places(self, sources: Sequence[str]) -> list[dict[str, Any]]:
        """Each as the evidence of another's removal names it: ``kept_id``, ``kept_row`` (dense row id), and so on."""
        ends = np.cumsum(self.records["length"].astype(np.int64)).tolist()
        raw = self.files.tobytes()
        return [
            {
                "kept_id": f"{int(record['high']):016x}{int(record['low']):016x}",
                "kept_row": int(record["row"]),
                "kept_source": sources[int(record["source"])],
                "kept_file": raw[end - int(record["length"]) : end].decode(),
                "kept_origin_row": int(record["origin_row"]),
            }
            for record, end in zip(self.records, ends, strict=True)
        ]


def describe(
    documents: pa.RecordBatch,
    duplicates: pa.Table,
    judged: pa.RecordBatch,
    row: int,
    rank: npt.NDArray[np.uint16],
    by_component: bool,
    seed: int,
) -> tuple[npt.NDArray[np.int64], Members]:
    """The documents of a batch that have duplicates, as members.

    Args:
        documents: with the columns id, origin_file and origin_row.
        duplicates: their rows of the duplicates sidecar.
        judged: source (position in the recipe's sources), split and reason (null if not removed) of each.
        row: dense row id of the first.
        rank: uint16[sources], whose copy is kept: the smallest first.
        by_component: one document is kept of each component, else of each content id.
        seed: the recipe's, which keys the choice among equals.

    Returns:
        Their positions in the batch, and the members.
    """
    from headrace.documents.store import text_buffers

    have = np.flatnonzero(duplicates.column("component").is_valid().to_numpy())
    found, which = duplicates.take(have).combine_chunks(), pa.array(have)
    ids = parse_ids(documents.column("id").take(which))
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
    records["source"] = judged.column("source").take(which).to_numpy()
    records["priority"] = rank[records["source"]]
    records["split"] = judged.column("split").take(which).to_numpy()
    records["barred"] = judged.column("reason").take(which).is_valid().to_numpy(zero_copy_only=False)
    files, offsets = text_buffers(documents.column("origin_file").take(which).cast(pa.large_string()))
    records["length"] = np.diff(offsets)
    return have, Members(records, files)


def elect(chunks: Chunks) -> Members:
    """The member to keep of each group, among those that no other verdict removes.

    The source of highest priority wins, then the longest text, then the smallest key, then the smallest row: a total
    order, so neither chunks nor their order matter.

    Returns:
        The winners in ascending order of group; a group whose members are all barred has none.
    """
    best = Members.none()
    for records, files in chunks:
        candidates = Members(records, files).take(np.flatnonzero(records["barred"] == 0))
        best = _first_of_groups(best.join(_first_of_groups(candidates)))
    return best


def free_in_order(chunks: Chunks) -> npt.NDArray[np.void]:
    """The members that no other verdict removes, MEMBER[n], by group and in each as :func:`elect` prefers."""
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
    """The order of groups, and within each of whose copy is kept."""
    return np.lexsort([r["row"], r["key"], -r["bytes"], r["priority"], r["group"]])


def _first_of_groups(members: Members) -> Members:
    order = _preference(members.records)
    group = members.records["group"][order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = group[1:] != group[:-1]
    return members.take(order[first])


@dataclass(frozen=True)
class Lost:
    """Those who were not elected though no other verdict removes them, in ascending order of row.

    Attributes:
        row: uint64[n].
        source: uint16[n], position in the recipe's sources.
        winner: int64[n], position of the document kept instead, among those kept.
        exact: bool[n], whether the winner's content id is the same.
    """

    row: npt.NDArray[np.uint64]
    source: npt.NDArray[np.uint16]
    winner: npt.NDArray[np.int64]
    exact: npt.NDArray[np.bool_]


def losers(chunks: Chunks, winners: Members) -> Lost:
    """Who lost, and to whom.

    Args:
        chunks: all members of the partition.
        winners: from :func:`elect`, of the same partition.
    """
    parts = [(np.empty(0, np.uint64), np.empty(0, np.uint16), np.empty(0, np.int64), np.empty(0, np.bool_))]
    best = winners.records
    for records, _ in chunks:
        some = records[records["barred"] == 0]
        winner = np.searchsorted(best["group"], some["group"])
        lost = best["row"][winner] != some["row"]
        some, winner = some[lost], winner[lost]
        exact = (best["high"][winner] == some["high"]) & (best["low"][winner] == some["low"])
        parts.append((some["row"], some["source"], winner, exact))
    row, source, winner, exact = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(row)
    return Lost(row[order], source[order], winner[order], exact[order])
