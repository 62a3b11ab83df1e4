"""Which records of a partition have a key that another record may have too: a filter of two bits a slot.

Most documents share no fingerprint with any other, so most records need not be sorted. A first pass over the keys marks
slots as met once or more often, as a counting Bloom filter with one hash does (Fan, Cao, Almeida and Broder, "Summary
Cache", SIGCOMM 1998); a second pass picks the records whose slot was met more often. No key that occurs twice is
missed; of keys that occur once a fifth at most comes along, and makes no edge.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from headrace.flow.exchange import partition_size, read_partition
from headrace.flow.kernels import inlined, kernel
from headrace.flow.task import TaskContext

# Slots for each record, before rounding up to a power of two: 4 let 12 to 22 % of the lone keys through, and 4 million
# records take 4 MB. Twice as many let half as many of those keys through, but seeing a record took 7.3 ns and picking
# 7.2, instead of 3.9 and 5.2.
SLOTS = 4

# A partition of at most this share of the budget is held between its two passes; a larger one is read twice.
HELD_SHARE = 0.2

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Repeats:
    """Finds the records whose key may occur more than once.

    Args:
        records: how many will be seen at most.
        memory: bytes that the slots may take; with fewer of them more lone keys are let through.
    """

    def __init__(self, records: int, memory: int) -> None:
        self._bits = max(6, min((SLOTS * records - 1).bit_length(), (4 * memory).bit_length() - 1))
        self._slots = np.zeros(1 << (self._bits - 2), dtype=np.uint8)

    def see(self, records: npt.NDArray[np.void]) -> None:
        """Take note of records, whose first field is a key of 64 bits (or the first half of a longer one)."""
        _see(_words(records), np.uint64(64 - self._bits), self._slots)

    def pick(self, records: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        """The records, in their order, whose key may have been seen more than once."""
        out = np.empty(len(records) + 1, dtype=np.int64)
        return records[out[: _pick(_words(records), np.uint64(64 - self._bits), self._slots, out)]]


def repeated(ctx: TaskContext, name: str, partition: int, dtype: np.dtype) -> Iterator[npt.NDArray[np.void]]:
    """The records of a partition, in their order, whose key may be that of another record; all such are there."""
    count = partition_size(ctx, "partition", name, partition)
    repeats = Repeats(count, ctx.memory // 8)
    held: list[npt.NDArray[np.void]] = []
    small = count * dtype.itemsize <= ctx.memory * HELD_SHARE
    for records, _ in read_partition(ctx, "partition", name, partition, dtype):
        repeats.see(records)
        if small:
            held.append(records)
    while held:
        yield repeats.pick(held.pop(0))
    if not small:
        for records, _ in read_partition(ctx, "partition", name, partition, dtype):
            yield repeats.pick(records)


def _words(records: npt.NDArray[np.void]) -> npt.NDArray[np.uint32]:
    return records.view(np.uint32).reshape(len(records), records.dtype.itemsize // 4)


@inlined
def _slot(words: npt.NDArray[np.uint32], i: int, shift: np.uint64) -> np.uint64:
    """The slot of a record's key: multiplicative hashing of its first 64 bits."""
    return np.uint64((((np.uint64(words[i, 1]) << np.uint64(32)) | np.uint64(words[i, 0])) * _GOLDEN) >> shift)


@kernel
def _see(words: npt.NDArray[np.uint32], shift: np.uint64, slots: npt.NDArray[np.uint8]) -> None:
    """Mark slots, two bits each: 0 never met, 1 once, 3 more often."""
    for i in range(len(words)):
        slot = _slot(words, i, shift)
        by = (slot & np.uint64(3)) << np.uint64(1)
        held = np.uint64(slots[slot >> np.uint64(2)])
        once = (held >> by) & np.uint64(1)
        slots[slot >> np.uint64(2)] = np.uint8(held | ((np.uint64(1) + (once << np.uint64(1))) << by))


@kernel
def _pick(
    words: npt.NDArray[np.uint32], shift: np.uint64, slots: npt.NDArray[np.uint8], out: npt.NDArray[np.int64]
) -> int:
    """Positions, ascending, of the records whose slot was met more often; ``out`` has room for one more."""
    count = np.uint64(0)
    for i in range(len(words)):
        slot = _slot(words, i, shift)
        by = (slot & np.uint64(3)) << np.uint64(1)
        out[count] = i
        count += (np.uint64(slots[slot >> np.uint64(2)]) >> (by + np.uint64(1))) & np.uint64(1)
    return int(count)
