"""Which documents are held out, and which training documents resemble them too much.

The content id decides, so equal texts are on the same side wherever they come from. Near-duplicates may not be. If the
recipe removes them, they are gone: one document is kept per component or, with verification, no two candidates that
reach the threshold. If it removes only exact copies, or nothing, the check finds those that survive on both sides and
takes them out of training.
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
    """The split of each document: its index in :data:`SPLITS`.

    With u, the keyed hash of the content id in [0, 1): test for u in [0, test), validation for u in [test, test +
    validation), otherwise training.

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
    """The kept members outside training, in ascending order of a field, then of row.

    Args:
        chunks: all members of a partition.
        removed: uint64[n], ascending: the rows removed as duplicates.
        field: what training documents are compared by: "component", or "low" for the content id.
    """
    found = Members.none()
    for records, files in chunks:
        kept = _kept(records, removed) & np.isin(records["split"], (VALIDATION, TEST))
        found = found.join(Members(records, files).take(np.flatnonzero(kept)))
    return found.take(np.lexsort([found.records["row"], found.records[field]]))


def find_leaks(
    records: npt.NDArray[np.void], removed: npt.NDArray[np.uint64], held: Members, field: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Which kept training documents match a held-out one: each with the one of the smallest row.

    Args:
        records: some members.
        removed: rows removed as duplicates, ascending.
        held: from :func:`held_out` with the same field.
        field: the field in which they must be equal.

    Returns:
        ``(indices, held-out indices)`` of the pairs.
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
