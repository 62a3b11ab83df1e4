"""Decide about a partition's documents that have duplicates: kept, removed as copies, or taken out of training because
they resemble a held-out document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from headrace.flow.slices import gather
from headrace.select.verdicts.evidence import COPY_OF_REFERENCE, DECISION, DUPLICATE, HOLDOUT, REASONS
from headrace.select.verdicts.greedy import decide_greedily
from headrace.select.verdicts.representatives import (
    REFERENCE,
    Chunks,
    Members,
    Removed,
    by_row,
    find_copies,
    find_representatives,
    rebatched,
)
from headrace.select.verdicts.splits import find_leaks, held_out
from headrace.select.verdicts.verification import Texts

if TYPE_CHECKING:
    from headrace.recipe.schema import Near

# Decisions written at a time.
CHUNK = 1 << 16


@dataclass(frozen=True)
class Policy:
    """What the recipe asks for.

    Attributes:
        remove: what counts as copies: documents of one component, or of one content id; None keeps copies.
        verify: how candidates were found, which are then verified (with ``remove`` "component"); None takes components
            as given and keeps one document of each.
        check: what training documents must not share with held-out ones: a component ("near"), a content id ("exact"),
            or None.
        sources: the source names, in recipe order.
        keeps_one: whether one document of a group of copies is kept; otherwise none is.
        against: for each source after the recipe's, the number of its set of references.
        firsts: the number of the first document of each set.
    """

    remove: Literal["component", "exact"] | None
    verify: Near | None
    check: Literal["exact", "near"] | None
    sources: tuple[str, ...]
    keeps_one: bool = True
    against: tuple[int, ...] = ()
    firsts: tuple[int, ...] = ()

    @property
    def compares_texts(self) -> bool:
        """Whether texts must be sent to the partitions."""
        return self.verify is not None


Decide = Callable[[npt.NDArray[np.void], npt.NDArray[np.uint8]], None]
"""Receives records of :data:`DECISION` and their payload."""


def deduplicate(
    members: Callable[[], Chunks], texts: Callable[[], Texts], policy: Policy, block_bytes: int, decide: Decide
) -> dict[str, list[list[int]]]:
    """Decide about the members of one partition.

    Args:
        members: opens the stream of members; may be called again.
        texts: opens the stream of texts of members that no other verdict removes.
        policy: the recipe's.
        block_bytes: bytes of text to hold at a time; does not affect the decisions.
        decide: receives the decisions.

    Returns:
        For each of :data:`REASONS`, the number of documents removed, by source and by the source of the kept document:
        int[sources][sources]; for copies of references, by source and by set of references.

    If one document is kept per component, no training document can resemble a held-out one; nor if candidates are
    verified, since of any two that reach the threshold the greedy rule removed one.
    """
    tally = Tally(policy, decide)
    if policy.verify is not None:
        decided = decide_greedily(members, texts, policy.verify, block_bytes)
        tally.report(DUPLICATE, decided.removed, decided.kept, decided.jaccard)
        if not policy.keeps_one:
            first_copies = FirstCopies.none(len(decided.kept.records))
            first_copies.see(decided.removed, decided.jaccard)
            removed, others, jaccard = first_copies.turned(decided.kept, members())
            tally.report(DUPLICATE, removed, others, jaccard)
    elif policy.remove is not None:
        representatives = find_representatives(members())
        gone = [np.empty(0, dtype=np.uint64)]
        first_copies = FirstCopies.none(len(representatives.records))
        for removed in find_copies(members(), representatives):
            tally.report(DUPLICATE, removed, representatives)
            first_copies.see(removed)
            if policy.remove == "exact" and policy.check is not None:
                gone.append(removed.row)
        if not policy.keeps_one:
            removed, others, _ = first_copies.turned(representatives, members())
            tally.report(DUPLICATE, removed, others)
            gone.append(removed.row)
        if policy.remove == "exact" and policy.check is not None:
            _check(members, policy.check, np.sort(np.concatenate(gone)), tally)
    elif policy.check is not None:
        _check(members, policy.check, np.empty(0, dtype=np.uint64), tally)
    return {reason: matrix.tolist() for reason, matrix in tally.matrices.items()}


@dataclass(frozen=True)
class FirstCopies:
    """For each document kept over others, the removed one with the smallest row.

    Attributes:
        row: uint64[kept]; the largest number if there is none.
        exact: bool[kept], whether the content id is the same.
        jaccard: float64[kept], their exact similarity, if known.
    """

    row: npt.NDArray[np.uint64]
    exact: npt.NDArray[np.bool_]
    jaccard: npt.NDArray[np.float64]

    @staticmethod
    def none(kept: int) -> FirstCopies:
        """Nothing removed yet."""
        return FirstCopies(np.full(kept, _NONE), np.zeros(kept, dtype=bool), np.full(kept, np.nan))

    def see(self, removed: Removed, jaccard: npt.NDArray[np.float64] | None = None) -> None:
        """Record some removed documents."""
        np.minimum.at(self.row, removed.representative, removed.row)
        first = np.flatnonzero(self.row[removed.representative] == removed.row)
        self.exact[removed.representative[first]] = removed.exact[first]
        if jaccard is not None:
            self.jaccard[removed.representative[first]] = jaccard[first]

    def turned(self, kept: Members, members: Chunks) -> tuple[Removed, Members, npt.NDArray[np.float64]]:
        """The reverse: the kept documents as removed in favor of the others, those others, and their similarities."""
        which = np.flatnonzero((self.row != _NONE) & (kept.records["split"] != REFERENCE))
        which = which[np.argsort(self.row[which])]
        records = kept.records[which]
        removed = Removed(records["row"], records["source"], np.arange(len(which)), self.exact[which])
        return removed, by_row(members, self.row[which]), self.jaccard[which]


_NONE = np.uint64(2**64 - 1)


def _check(
    members: Callable[[], Chunks],
    check: Literal["exact", "near"],
    gone: npt.NDArray[np.uint64],
    tally: Tally,
) -> None:
    """Take training documents that resemble a held-out one out of training, each because of the one with the smallest
    row."""
    field = "component" if check == "near" else "low"
    held = held_out(rebatched(members()), gone, field)
    if not len(held.records):
        return
    for records, _ in rebatched(members()):
        positions, others = find_leaks(records, gone, held, field)
        exact = np.full(len(positions), check == "exact")
        removed = Removed(records["row"][positions], records["source"][positions], others, exact)
        tally.report(HOLDOUT, removed, held)


class Tally:
    """Counts decisions and passes them on.

    Args:
        policy: the recipe's.
        decide: receives the decisions.
    """

    def __init__(self, policy: Policy, decide: Decide) -> None:
        self._decide = decide
        own, sets = len(policy.sources), len(policy.firsts)
        self.matrices = {reason: np.zeros((own, own), dtype=np.int64) for reason in REASONS}
        self.matrices[REASONS[COPY_OF_REFERENCE]] = np.zeros((own, sets), dtype=np.int64)
        # For a kept document's source: its column in a matrix, and the number of its set's first document.
        self._column = np.array([*range(own), *policy.against], dtype=np.int64)
        self._first = np.array([*[0] * own, *(policy.firsts[k] for k in policy.against)], dtype=np.uint64)

    def report(
        self, reason: int, removed: Removed, kept: Members, jaccard: npt.NDArray[np.float64] | None = None
    ) -> None:
        """Pass on which documents are removed, and why: as copies of references if the kept ones are references."""
        lengths = kept.records["length"].astype(np.int64)
        starts = np.cumsum(lengths) - lengths
        for start in range(0, len(removed.row), CHUNK):
            some = slice(start, start + CHUNK)
            representative = removed.representative[some]
            others = kept.records[representative]
            records = np.empty(len(representative), dtype=DECISION)
            records["row"] = removed.row[some]
            records["reason"] = np.where(others["split"] == REFERENCE, COPY_OF_REFERENCE, reason)
            for field, of in _OF_THE_KEPT:
                records[field] = others[of]
            records["kept_row"] -= self._first[others["source"]]
            records["how"] = removed.exact[some] + 2 * others["split"]
            records["jaccard"] = np.nan if jaccard is None else np.round(jaccard[some], 6)
            self._decide(records, gather(kept.files, starts[representative], lengths[representative]))
            for code in np.unique(records["reason"]).tolist():
                mine = records["reason"] == code
                places = (removed.source[some][mine].astype(np.int64), self._column[others["source"][mine]])
                np.add.at(self.matrices[REASONS[code]], places, 1)


_OF_THE_KEPT = (
    ("high", "high"),
    ("low", "low"),
    ("kept_row", "row"),
    ("kept_origin_row", "origin_row"),
    ("size", "size"),
    ("length", "length"),
    ("kept_source", "source"),
)


def decisions_between(
    chunks: Iterable[tuple[npt.NDArray[np.void], npt.NDArray[np.uint8]]], start: int, stop: int
) -> tuple[npt.NDArray[np.void], npt.NDArray[np.uint8]]:
    """The decisions about the rows [start, stop).

    Args:
        chunks: records of :data:`DECISION` with their payload, in any order.
        start, stop: global row numbers.

    Returns:
        ``(records, names)``, with the names that belong to these records.
    """
    found, names = [np.empty(0, dtype=DECISION)], [np.empty(0, dtype=np.uint8)]
    for records, payload in chunks:
        inside = (records["row"] >= start) & (records["row"] < stop)
        if inside.all():
            found.append(records)
            names.append(payload)
            continue
        mine = np.flatnonzero(inside)
        lengths = records["length"].astype(np.int64)
        found.append(records[mine])
        names.append(gather(payload, (np.cumsum(lengths) - lengths)[mine], lengths[mine]))
    return np.concatenate(found), np.concatenate(names)
