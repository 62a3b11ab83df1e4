"""Byte-pair merging of one piece of text (Sennrich et al. 2016, 1508.07909): always the best rank, leftmost first.

Short pieces use the simple method, a vectorized search over all slots for the best pair before each merge, which for
about sixty symbols beats any queue. Longer ones use a heap of pairs with a linked list of symbols: n log n. A piece
larger than the cache is merged window by window, and the windows are joined where that is exact.

Why joining is exact: let T be tokens that spell a text, such that any two neighbors x y, merged alone, give x y again.
Then T is the text's encoding. Suppose some merge crossed a boundary of T, and take the first that does. Until then
merges lay within tokens, and those within x y happened in the order in which x y alone would do them, because that
order depends only on rank and position. So x y alone would cross its boundary too, a contradiction. Hence no merge
crosses a boundary, and within each token everything merges that would merge alone. Neighbors from one window have this
property (by the same argument), so it need only be checked where two windows meet.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.flow.kernels import borrowing, kernel
from headrace.tokens.merge_table import ASCII, NONE, MergeTable, merge_of
from headrace.tokens.utf8 import code_point
from headrace.tokens.word_cache import TOKEN_BITS

SHORT = 64
"""Symbols up to which the simple method is used: four vectors of ranks."""

ROOM = 80
"""Slots that :func:`merge_short` needs: ``SHORT``, one for whatever is outside, rounded up to whole vectors."""

_LANES = 16
_OUTSIDE = SHORT + 1
_NO_TOKEN = np.uint32((1 << TOKEN_BITS) - 1)
_INDEX = np.uint32(SHORT - 1)
_INDEX_BITS = np.uint32(6)
_NO_KEY = np.uint32(NONE)

# Bytes in a window: its arrays (about 40 bytes per symbol) stay in the L2 cache.
_WINDOW = 2048

_RANK, _PLACE = np.int64(32), np.int64(0xFFFF_FFFF)


@borrowing
def _symbols(data: np.ndarray, start: int, end: int, table: MergeTable, out: np.ndarray) -> int:
    """The tokens of a slice of text before any merge; returns their number."""
    if table.char_ids.size == 0:
        for i in range(end - start):
            out[i] = table.byte_ids[data[start + i]]
        return end - start
    count = 0
    while start < end:
        point, size = code_point(data, start)
        known = table.char_ids[point]
        if known >= 0:
            out[count] = known
            count += 1
        else:
            for i in range(size):
                out[count] = table.byte_ids[data[start + i]]
                count += 1
        start += size
    return count


class Places(NamedTuple):
    """Scratch memory for a short word: slot i holds a symbol and its merge with the next one.

    Attributes:
        symbols: uint32[ROOM].
        keys: uint32[ROOM]: ``rank << 6 | i`` for the pair that starts at slot i, all ones if it does not merge.
        after: int32[ROOM], the slot of the next symbol.
        before: int32[ROOM], the slot of the previous symbol.
    """

    symbols: np.ndarray
    keys: np.ndarray
    after: np.ndarray
    before: np.ndarray


@kernel
def new_places() -> Places:
    """Scratch memory for :func:`merge_short`."""
    return Places(
        np.empty(ROOM, np.uint32), np.empty(ROOM, np.uint32), np.empty(ROOM, np.int32), np.empty(ROOM, np.int32)
    )


@borrowing
def _key(rank: int, place: int) -> np.uint32:
    return _NO_KEY if rank == NONE else (np.uint32(rank) << _INDEX_BITS) | np.uint32(place)


@borrowing
def _fill(data: np.ndarray, start: int, end: int, table: MergeTable, places: Places) -> int:
    """Fill the slots with a short slice of text before any merge; returns the number of symbols."""
    symbols, keys, after, before = places
    for i in range(ROOM):
        keys[i] = _NO_KEY
    size, last = end - start, np.int64(data[start])
    high = last
    for i in range(1, size):
        byte = np.int64(data[start + i])
        high |= byte
        if high >= ASCII:
            break
        keys[i - 1] = _key(table.ascii_ranks[last * ASCII + byte], i - 1)
        last = byte
    if high < ASCII:
        count = size
        for i in range(count):
            symbols[i] = table.ascii_ids[data[start + i]]
    else:
        count = _symbols(data, start, end, table, symbols)
        for i in range(count - 1):
            keys[i] = _key(merge_of(table, symbols[i], symbols[i + 1]), i)
    for i in range(count):
        after[i], before[i] = i + 1, i - 1
    before[0] = _OUTSIDE
    symbols[count] = symbols[_OUTSIDE] = _NO_TOKEN
    return count


@borrowing
def _least(keys: np.ndarray, size: int) -> np.uint32:
    best = _NO_KEY
    for i in range(_LANES):
        best = min(best, keys[i])
    if size > _LANES:
        for i in range(_LANES, 2 * _LANES):
            best = min(best, keys[i])
    if size > 2 * _LANES:
        for i in range(2 * _LANES, 4 * _LANES):
            best = min(best, keys[i])
    return best


@borrowing
def merge_short(
    data: np.ndarray, start: int, end: int, table: MergeTable, places: Places, out: np.ndarray, at: int
) -> int:  # fmt: skip
    """Merge a slice of text of at most ``SHORT`` bytes.

    Args:
        data: uint8, valid UTF-8.
        start: the first byte.
        end: the byte after the last.
        table: the merges.
        places: scratch memory.
        out: uint32; the tokens go to ``out[at:]``.
        at: the index of the first token.

    Returns:
        The number of tokens.
    """
    symbols, keys, after, before = places
    size = _fill(data, start, end, table, places)
    while True:
        best = _least(keys, size)
        if best == _NO_KEY:
            break
        i = int(np.int64(best & _INDEX))
        gone = after[i]
        right, left = after[gone], before[i]
        symbols[i] = table.results[best >> _INDEX_BITS]
        after[i], before[right] = right, i
        keys[gone] = _NO_KEY
        keys[i] = _key(merge_of(table, symbols[i], symbols[right]), i)
        keys[left] = _key(merge_of(table, symbols[left], symbols[i]), left)
    made, i = 0, 0
    while i < size:
        out[at + made] = symbols[i]
        made, i = made + 1, int(after[i])
    return made


@borrowing
def _push(heap: np.ndarray, size: int, item: int) -> int:
    at = size
    while at > 0:
        parent = (at - 1) >> 1
        if heap[parent] <= item:
            break
        heap[at] = heap[parent]
        at = parent
    heap[at] = item
    return size + 1


@borrowing
def _pop(heap: np.ndarray, size: int) -> int:
    """Remove the smallest item, ``heap[0]``; returns the new size."""
    size -= 1
    item, at = heap[size], 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= item:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = item
    return size


@kernel
def merge_window(data: np.ndarray, start: int, end: int, table: MergeTable, out: np.ndarray, at: int) -> int:
    """Merge a slice of text of any length with a heap.

    Args:
        data: uint8, valid UTF-8.
        start: the first byte.
        end: the byte after the last.
        table: the merges.
        out: uint32; the tokens go to ``out[at:]``, which must have room for one per byte.
        at: the index of the first token.

    Returns:
        The number of tokens.
    """
    size = end - start
    symbols, ranks = np.empty(size, np.int64), np.empty(size, np.int64)
    before, after = np.empty(size, np.int32), np.empty(size, np.int32)
    heap, held = np.empty(2 * size, np.int64), 0  # rank << 32 | slot; a merge adds at most one more than it removes
    count = _symbols(data, start, end, table, symbols)
    for i in range(count):
        before[i], after[i] = i - 1, i + 1
        ranks[i] = merge_of(table, symbols[i], symbols[i + 1]) if i + 1 < count else NONE
        if ranks[i] != NONE:
            held = _push(heap, held, (ranks[i] << _RANK) | i)
    while held:
        best = heap[0]
        held = _pop(heap, held)
        i = best & _PLACE
        # If a slot's pair has changed since, the item is stale: its rank is not the pair's.
        if ranks[i] != best >> _RANK:
            continue
        gone = after[i]
        symbols[i] = table.results[ranks[i]]
        ranks[gone] = NONE
        after[i] = after[gone]
        if after[i] < count:
            before[after[i]] = i
            ranks[i] = merge_of(table, symbols[i], symbols[after[i]])
        else:
            ranks[i] = NONE
        if ranks[i] != NONE:
            held = _push(heap, held, (ranks[i] << _RANK) | i)
        if i > 0:
            left = before[i]
            ranks[left] = merge_of(table, symbols[left], symbols[i])
            if ranks[left] != NONE:
                held = _push(heap, held, (ranks[left] << _RANK) | left)
    made, i = 0, 0
    while i < count:
        out[at + made] = symbols[i]
        made, i = made + 1, after[i]
    return made


@kernel
def _apart(data: np.ndarray, joint: int, left: int, right: int, table: MergeTable) -> bool:
    """Whether two tokens that meet at a byte stay as they are when merged alone."""
    fallback = table.byte_ids[data[joint - 1]] == left or table.byte_ids[data[joint]] == right
    if fallback and table.char_ids.size:
        return True  # the pieces of a character without a token take part in no merge
    low, high = joint - table.lengths[left], joint + table.lengths[right]
    made = np.empty(high - low, np.uint32)
    return merge_window(data, low, high, table, made, int(np.int64(0))) == 2 and made[0] == left


@kernel
def _whole(data: np.ndarray, at: int, table: MergeTable) -> bool:
    """Whether a byte may start a window: if symbols are characters, only a character's first byte may."""
    return table.char_ids.size == 0 or (data[at] & 0xC0) != 0x80


@kernel
def merge_long(data: np.ndarray, start: int, end: int, table: MergeTable, out: np.ndarray, at: int) -> int:
    """Merge a slice of text of any length, window by window.

    Each window's last tokens are discarded, because what follows could change them, and the next window starts there.
    If two windows do not join, the next one starts further back and is longer.

    Args:
        data: uint8, valid UTF-8.
        start: the first byte.
        end: the byte after the last.
        table: the merges.
        out: uint32; the tokens go to ``out[at:]``, which must have room for one per byte.
        at: the index of the first token.

    Returns:
        The number of tokens.
    """
    shortest = max(_WINDOW, 8 * table.reach)
    window, first, done = shortest, at, start  # the bytes before ``done`` are encoded as out[first:at]
    while True:
        until = min(end, done + window)
        while until < end and not _whole(data, until, table):
            until -= 1
        count = merge_window(data, done, until, table, out, at)
        if at > first and not _apart(data, done, int(np.int64(out[at - 1])), int(np.int64(out[at])), table):
            target = done - (window >> 2)
            while at > first and (done > target or not _whole(data, done, table)):
                at -= 1
                done -= table.lengths[out[at]]
            window *= 2
            continue
        if until == end:
            return at + count - first
        kept = until
        while count > 1 and (kept > until - table.reach or not _whole(data, kept, table)):
            count -= 1
            kept -= table.lengths[out[at + count]]
        at, done, window = at + count, kept, shortest
