"""Which documents are held out, and which training documents are too much like them.

The content id decides, so equal texts fall on the same side wherever they come from. Near-duplicates need not. They are
gone where the recipe removes them: of a component one document is kept, or, with verification, no two candidates that
reach the threshold. A recipe that removes exact copies only, or nothing, leaves them: the check finds those that
survive on both sides and takes them out of training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from headrace.flow.keys import keyed, salt, unit
from headrace.select.verdicts.representatives import Chunks, Members
from headrace.select.verdicts.verification import among

if TYPE_CHECKING:
    from headrace.recipe.schema import Split

SPLITS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = 0, 1, 2


def draw(ids: npt.NDArray[np.uint64], seed: int, split: Split) -> npt.NDArray[np.uint8]:
    """The split of each document: its position in :data:`SPLITS`.

    With u the keyed hash of the content id in [0, 1): test for u in [0, test), validation for u in
    [test, test + validation), training beyond.

    Args:
        ids: uint64[n, 2] content ids.
        seed: the recipe's seed.
        split: the recipe's section.

    Returns:
        uint8[n].
    """
    at = unit(keyed(salt(seed, "holdout"), ids))
    bounds = np.array([split.test, split.test + split.validation])
    return np.array([TEST, VALIDATION, TRAIN], dtype=np.uint8)[np.searchsorted(bounds, at, side="right")]


def held_out(chunks: Chunks, removed: npt.NDArray[np.uint64], field: str) -> Members:
    """The members outside training that are kept, in ascending order of a field and then of row.

    Args:
        chunks: all members of a partition.
        removed: uint64[n] in ascending order, the rows removed as duplicates.
        field: what training documents will be compared by: "component", or "low" for the content id.
    """
    found = Members.none()
    for records, files in chunks:
        kept = _kept(records, removed) & np.isin(records["split"], (VALIDATION, TEST))
        found = found.join(Members(records, files).take(np.flatnonzero(kept)))
    return found.take(np.lexsort([found.records["row"], found.records[field]]))


def meetings(
    records: npt.NDArray[np.void], removed: npt.NDArray[np.uint64], held: Members, field: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Which kept training documents meet a held-out one: each with the one of smallest row.

    Args:
        records: some members.
        removed: rows removed as duplicates, ascending.
        held: from :func:`held_out` with the same field.
        field: equal in both.

    Returns:
        ``(positions, held positions)`` of the pairs.
    """
    training = np.flatnonzero(_kept(records, removed) & (records["split"] == TRAIN))
    low = np.searchsorted(held.records[field], records[field][training], side="left")
    high = np.searchsorted(held.records[field], records[field][training], side="right")
    met = low < high
    positions, others = training[met], low[met]
    if field == "low":
        same = records["high"][positions] == held.records["high"][others]
        positions, others = positions[same], others[same]
    return positions, others


def _kept(records: npt.NDArray[np.void], removed: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    return (records["barred"] == 0) & ~among(records["row"], removed)
