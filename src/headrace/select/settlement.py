"""What becomes of the documents of one partition that have duplicates: kept, removed as copies, or taken out of
training because a held-out document is like them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from headrace.flow.exchange import gather
from headrace.select.election import Chunks, Lost, Members, elect, losers
from headrace.select.greedy import decide_greedily
from headrace.select.splits import SPLITS, held_out, meetings
from headrace.select.verification import Texts

if TYPE_CHECKING:
    from headrace.recipe.schema import Near

DECISION = np.dtype([("row", "<u8"), ("reason", "u1"), ("length", "<u4")])
"""One document removed here; the payload is the evidence, JSON."""

REASONS = ("duplicate", "holdout")

# Decisions whose evidence is held as Python objects at a time.
CHUNK = 4096


@dataclass(frozen=True)
class Rules:
    """What the recipe asks for.

    Attributes:
        remove: what copies are: documents of one component, or of one content id; None keeps copies.
        verify: how candidates were found, and so are verified (with ``remove`` "component"); None to take components at
            their word and keep one document of each.
        check: what training documents must not share with held-out ones: a component ("near"), a content id
            ("exact"), or None.
        sources: their names, in the recipe's order.
    """

    remove: Literal["component", "exact"] | None
    verify: Near | None
    check: Literal["exact", "near"] | None
    sources: tuple[str, ...]

    @property
    def compares_texts(self) -> bool:
        """Whether texts must travel."""
        return self.verify is not None


Decide = Callable[[npt.NDArray[np.void], npt.NDArray[np.uint8]], None]
"""Takes records of :data:`DECISION` and their payload."""


def settle(
    members: Callable[[], Chunks], texts: Callable[[], Texts], rules: Rules, block_bytes: int, decide: Decide
) -> dict[str, list[list[int]]]:
    """Decide about the members of one partition.

    Args:
        members: opens the stream of members; may be called again.
        texts: opens the stream of texts of those that no other verdict removes.
        rules: the recipe's.
        block_bytes: what texts may take that are held at a time; the decisions do not depend on it.
        decide: receives the decisions.

    Returns:
        For each of :data:`REASONS` the number of documents removed, by source and by the source of the document kept:
        int[sources][sources].
    """
    matrices = {reason: np.zeros((len(rules.sources),) * 2, dtype=np.int64) for reason in REASONS}
    removed = np.empty(0, dtype=np.uint64)
    if rules.remove is not None:
        jaccard = None
        if rules.verify is not None:
            decided = decide_greedily(members, texts, rules.verify, block_bytes)
            lost, winners, jaccard = decided.lost, decided.kept, decided.jaccard
        else:
            winners = elect(members())
            lost = losers(members(), winners)
        removed = lost.row
        _tell(0, lost, winners, jaccard, rules.sources, decide)
        np.add.at(matrices["duplicate"], (lost.source, winners.records["source"][lost.winner]), 1)
    # Of verified candidates, none that reach the threshold are left: the greedy rule removed one of each pair.
    if rules.check == "exact" or (rules.check == "near" and rules.verify is None):
        met, held = _holdout(members, rules.check, removed)
        _tell(1, met, held, None, rules.sources, decide)
        np.add.at(matrices["holdout"], (met.source, held.records["source"][met.winner]), 1)
    return {reason: matrix.tolist() for reason, matrix in matrices.items()}


def _holdout(
    members: Callable[[], Chunks], check: Literal["exact", "near"], removed: npt.NDArray[np.uint64]
) -> tuple[Lost, Members]:
    """The training documents that meet a held-out one, each with the one of smallest row."""
    field = "component" if check == "near" else "low"
    held = held_out(members(), removed, field)
    parts = [(np.empty(0, np.uint64), np.empty(0, np.uint16), np.empty(0, np.int64))]
    if len(held.records):
        for records, _ in members():
            positions, others = meetings(records, removed, held, field)
            parts.append((records["row"][positions], records["source"][positions], others))
    row, source, other = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(row, kind="stable")
    return Lost(row[order], source[order], other[order], np.full(len(row), check == "exact")), held


def _tell(
    reason: int,
    lost: Lost,
    kept: Members,
    jaccard: npt.NDArray[np.float64] | None,
    sources: Sequence[str],
    decide: Decide,
) -> None:
    """Write the decisions with their evidence."""
    # One winner after the other: those who lost to it alike have the same evidence, which is then made once.
    order = np.lexsort([lost.exact, lost.winner])
    for start in range(0, len(order), CHUNK):
        some = order[start : start + CHUNK]
        which, back = np.unique(lost.winner[some], return_inverse=True)
        alike = np.arange(len(some)) if jaccard is not None else 2 * back + lost.exact[some]
        _, first, same = np.unique(alike, return_index=True, return_inverse=True)
        others = kept.take(which)
        places = others.places(sources)
        told = []
        for i, at in zip(some[first].tolist(), back[first].tolist(), strict=True):
            evidence: dict[str, Any] = {**places[at], "method": "exact" if lost.exact[i] else "minhash"}
            if jaccard is not None:
                evidence["jaccard"] = round(float(jaccard[i]), 6)
            evidence["component_size"] = int(others.records["size"][at])
            if REASONS[reason] == "holdout":
                evidence["kept_split"] = SPLITS[int(others.records["split"][at])]
            told.append(orjson.dumps(evidence))
        lengths = np.array([len(evidence) for evidence in told], dtype=np.int64)
        records = np.empty(len(some), dtype=DECISION)
        records["row"], records["reason"], records["length"] = lost.row[some], reason, lengths[same]
        starts = np.cumsum(lengths) - lengths
        decide(records, gather(np.frombuffer(b"".join(told), dtype=np.uint8), starts[same], lengths[same]))


def decisions_between(
    chunks: Iterable[tuple[npt.NDArray[np.void], npt.NDArray[np.uint8]]], start: int, stop: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8], pa.Array]:
    """The decisions about the rows [start, stop), in order of row.

    Args:
        chunks: records of :data:`DECISION` with their payload, in any order.
        start, stop: dense row ids.

    Returns:
        ``(rows, reasons, evidence)``: int64[n] counted from ``start``, positions in :data:`REASONS`, and pa.string().
    """
    found, told = [np.empty(0, dtype=DECISION)], [np.empty(0, dtype=np.uint8)]
    for records, evidence in chunks:
        mine = np.flatnonzero((records["row"] >= start) & (records["row"] < stop))
        lengths = records["length"].astype(np.int64)
        found.append(records[mine])
        told.append(gather(evidence, (np.cumsum(lengths) - lengths)[mine], lengths[mine]))
    records = np.concatenate(found)
    lengths = records["length"].astype(np.int64)
    order = np.argsort(records["row"])
    data = gather(np.concatenate(told), (np.cumsum(lengths) - lengths)[order], lengths[order])
    offsets = np.concatenate([[0], np.cumsum(lengths[order])]).astype(np.int64)
    text = pa.LargeStringArray.from_buffers(len(records), pa.py_buffer(offsets), pa.py_buffer(data))
    return records["row"][order].astype(np.int64) - start, records["reason"][order], text.cast(pa.string())
