"""Find the records of a partition whose key may occur more than once: a filter with two bits per slot.

Most documents share no fingerprint with another, so most records need not be sorted. A first pass over the keys marks
slots as seen once or more often, like a counting Bloom filter with one hash (Fan, Cao, Almeida and Broder, "Summary
Cache", SIGCOMM 1998); a second pass picks the records whose slot was seen more often. No repeated key is missed; at
most a fifth of the unique keys come along, and make no edges.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from headrace.flow.exchange import partition_size, read_partition
from headrace.flow.kernels import inlined, kernel
from headrace.flow.task import TaskContext

# Slots per record, before rounding up to a power of two: 4 let 12 to 22 % of unique keys through, and 4 million records
# take 4 MB. Twice as many slots halve that share, but marking a record took 7.3 ns and picking 7.2, instead of 3.9 and
# 5.2.
SLOTS = 4

# A partition of at most this share of the budget is held between the passes; a larger one is read twice.
HELD_SHARE = 0.2

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Repeats:
    """Finds the records whose key may occur more than once.

    Args:
        records: the maximum number of records.
        memory: maximum bytes for the slots; fewer slots let more unique keys through.
    """

    def __init__(self, records: int, memory: int) -> None:
        self._bits = max(6, min((SLOTS * records - 1).bit_length(), (4 * memory).bit_length() - 1))
        self._slots = np.zeros(1 << (self._bits - 2), dtype=np.uint8)

    def see(self, records: npt.NDArray[np.void]) -> None:
        """Mark records, whose first field is a 64-bit key (or the first half of a longer one)."""
        _see(_words(records), np.uint64(64 - self._bits), self._slots)

    def pick(self, records: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        """The records, in order, whose key may have been seen more than once."""
        out = np.empty(len(records) + 1, dtype=np.int64)
        return records[out[: _pick(_words(records), np.uint64(64 - self._bits), self._slots, out)]]


def repeated(ctx: TaskContext, name: str, partition: int, dtype: np.dtype) -> Iterator[npt.NDArray[np.void]]:
    """The records of a partition, in order, that may share their key with another; none that do are missing."""
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
    """Mark slots, two bits each: 0 never seen, 1 once, 3 more often."""
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
    """Positions, ascending, of records whose slot was seen more often; ``out`` needs room for one extra."""
    count = np.uint64(0)
    for i in range(len(words)):
        slot = _slot(words, i, shift)
        by = (slot & np.uint64(3)) << np.uint64(1)
        out[count] = i
        count += (np.uint64(slots[slot >> np.uint64(2)]) >> (by + np.uint64(1))) & np.uint64(1)
    return int(count)
