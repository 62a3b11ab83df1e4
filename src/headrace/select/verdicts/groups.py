"""Groups of members by number: find each group's best member, and look groups up, with a hash table.

Linear probing over a power of two of slots, at most half full (Knuth, The Art of Computer Programming 3, 6.4). Results
do not depend on the order of slots.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace.flow.kernels import kernel

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

Slots = npt.NDArray[np.int32]


def slots_for(groups: int) -> Slots:
    """An empty table for this many groups: int32[a power of two], all -1."""
    return np.full(1 << max(4, (2 * groups).bit_length()), -1, dtype=np.int32)


def best_of_groups(records: npt.NDArray[np.void]) -> npt.NDArray[np.int64]:
    """The preferred member of each group, among those that are not barred.

    The source with the highest priority wins, then the longest text, the smallest key, the smallest row: a total order,
    so the order of the members does not matter.

    Args:
        records: :data:`headrace.select.verdicts.representatives.MEMBER`, [n].

    Returns:
        int64[groups], indices into ``records``, in the order of each group's first member.
    """
    found = np.empty(len(records), dtype=np.int64)
    count = _best(
        records["group"],
        records["priority"],
        records["bytes"],
        records["key"],
        records["row"],
        records["barred"],
        slots_for(len(records)),
        found,
    )
    return found[:count]


def index_groups(groups: npt.NDArray[np.uint64]) -> Slots:
    """Build a table of groups for :func:`find_groups`."""
    slots = slots_for(len(groups))
    _enter(groups, slots)
    return slots


def find_groups(wanted: npt.NDArray[np.uint64], groups: npt.NDArray[np.uint64], slots: Slots) -> npt.NDArray[np.int64]:
    """The index of each wanted group in ``groups``, whose table is ``slots``: int64[n], -1 if absent."""
    out = np.empty(len(wanted), dtype=np.int64)
    _find(wanted, groups, slots, out)
    return out


@kernel
def _best(
    group: npt.NDArray[np.uint64],
    priority: npt.NDArray[np.uint16],
    size: npt.NDArray[np.int64],
    key: npt.NDArray[np.uint64],
    row: npt.NDArray[np.uint64],
    barred: npt.NDArray[np.uint8],
    slots: Slots,
    best: npt.NDArray[np.int64],
) -> int:
    """Fill ``best`` with the indices of the preferred members; returns their number."""
    mask = np.uint64(len(slots) - 1)
    count = 0
    for i in range(len(group)):
        if barred[i]:
            continue
        at = ((group[i] * _GOLDEN) >> np.uint64(32)) & mask
        while slots[at] >= 0 and group[best[slots[at]]] != group[i]:
            at = (at + np.uint64(1)) & mask
        if slots[at] < 0:
            slots[at] = count
            best[count] = i
            count += 1
            continue
        j = best[slots[at]]
        better = priority[i] < priority[j]
        if priority[i] == priority[j]:
            better = size[i] > size[j]
            if size[i] == size[j]:
                better = key[i] < key[j] or (key[i] == key[j] and row[i] < row[j])
        if better:
            best[slots[at]] = i
    return count


@kernel
def _enter(groups: npt.NDArray[np.uint64], slots: Slots) -> None:
    mask = np.uint64(len(slots) - 1)
    for i in range(len(groups)):
        at = ((groups[i] * _GOLDEN) >> np.uint64(32)) & mask
        while slots[at] >= 0:
            at = (at + np.uint64(1)) & mask
        slots[at] = i


@kernel
def _find(
    wanted: npt.NDArray[np.uint64], groups: npt.NDArray[np.uint64], slots: Slots, out: npt.NDArray[np.int64]
) -> None:
    mask = np.uint64(len(slots) - 1)
    for i in range(len(wanted)):
        at = ((wanted[i] * _GOLDEN) >> np.uint64(32)) & mask
        while slots[at] >= 0 and groups[slots[at]] != wanted[i]:
            at = (at + np.uint64(1)) & mask
        out[i] = slots[at]
