"""Byte-pair merging of one piece of text (Sennrich et al. 2016, 1508.07909): always the best rank, the leftmost first.

Short pieces take the plain way, a search for the best pair before each merge, by the vector unit over all places
whether they are taken or not, which for some sixty symbols beats any queue. Longer ones take a heap of pairs with a
linked list of symbols: n log n. A piece beyond the size of the cache is merged window by window, and the windows are
joined where that is exact.

Why joining is exact: let T be tokens that spell a text, such that every two neighbours x y, merged alone, give x y
again. Then T is the text's encoding. For suppose that some merge crosses a joint of T, and take the first that does.
Until then merges lay within tokens, and those within x y came in the order in which x y alone would do them, as that
order is by rank and place only. So x y alone would cross its joint too. Hence no merge crosses a joint, and within
each token everything merges that would merge alone. Neighbours out of one window have the property (by the same
argument), so it need be checked only where two windows meet.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.flow.kernels import borrowing, kernel
from headrace.tokens.merge_table import ASCII, NONE, MergeTable, merge_of
from headrace.tokens.utf8 import code_point
from headrace.tokens.word_cache import TOKEN_BITS

SHORT = 64
"""Symbols up to which the plain way is taken: four vectors of ranks."""

ROOM = 80
"""Places that :func:`merge_short` needs: ``SHORT``, one that stands for what is outside, and whole vectors."""

_LANES = 16
_OUTSIDE = SHORT + 1
_NO_TOKEN = np.uint32((1 << TOKEN_BITS) - 1)
_INDEX = np.uint32(SHORT - 1)
_INDEX_BITS = np.uint32(6)
_NO_KEY = np.uint32(NONE)

# Bytes of a window: its arrays (some 40 bytes a symbol) stay in the second-level cache.
_WINDOW = 2048

_RANK, _PLACE = np.int64(32), np.int64(0xFFFF_FFFF)


@borrowing
def _symbols(data: np.ndarray, start: int, end: int, table: MergeTable, out: np.ndarray) -> int:
    """The tokens of a stretch of text before any merge; returns how many."""
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
    """Room for a short word: place i holds a symbol, and what it would merge to with the next one.

    Attributes:
        symbols: uint32[ROOM].
        keys: uint32[ROOM]: ``rank << 6 | i`` of the pair that begins at place i, all ones if it does not merge.
        after: int32[ROOM], the place of the next symbol.
        before: int32[ROOM], of the one before.
    """

    symbols: np.ndarray
    keys: np.ndarray
    after: np.ndarray
    before: np.ndarray


@kernel
def new_places() -> Places:
    """Room for :func:`merge_short`."""
    return Places(
        np.empty(ROOM, np.uint32), np.empty(ROOM, np.uint32), np.empty(ROOM, np.int32), np.empty(ROOM, np.int32)
    )


@borrowing
def _key(rank: int, place: int) -> np.uint32:
    return _NO_KEY if rank == NONE else (np.uint32(rank) << _INDEX_BITS) | np.uint32(place)


@borrowing
def _fill(data: np.ndarray, start: int, end: int, table: MergeTable, places: Places) -> int:
    """Put a short stretch of text in place before any merge; returns how many symbols it is."""
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
    """Merge a stretch of text of at most ``SHORT`` bytes.

    Args:
        data: uint8, valid UTF-8.
        start: the first byte.
        end: the byte after the last.
        table: the merges.
        places: room.
        out: uint32; the tokens go to ``out[at:]``.
        at: where.

    Returns:
        How many tokens.
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
    """Take the least item, ``heap[0]``, away; returns the new size."""
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
    """Merge a stretch of text of any length by a heap.

    Args:
        data: uint8, valid UTF-8.
        start: the first byte.
        end: the byte after the last.
        table: the merges.
        out: uint32; the tokens go to ``out[at:]``, which must have a place for each byte.
        at: where.

    Returns:
        How many tokens.
    """
    size = end - start
    symbols, ranks = np.empty(size, np.int64), np.empty(size, np.int64)
    before, after = np.empty(size, np.int32), np.empty(size, np.int32)
    heap, held = np.empty(2 * size, np.int64), 0  # rank << 32 | place; each merge adds at most one more than it takes
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
        # Of a place whose pair has changed since, an item is out of date: the rank tells, as it is the pair's own.
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
    """Whether two tokens that meet at a byte, merged alone, stay what they are."""
    fallback = table.byte_ids[data[joint - 1]] == left or table.byte_ids[data[joint]] == right
    if fallback and table.char_ids.size:
        return True  # the pieces of a character without a token take part in no merge
    low, high = joint - table.lengths[left], joint + table.lengths[right]
    made = np.empty(high - low, np.uint32)
    return merge_window(data, low, high, table, made, int(np.int64(0))) == 2 and made[0] == left


@kernel
def _whole(data: np.ndarray, at: int, table: MergeTable) -> bool:
    """Whether a byte may begin a window: with characters for symbols, only the first byte of one may."""
    return table.char_ids.size == 0 or (data[at] & 0xC0) != 0x80


@kernel
def merge_long(data: np.ndarray, start: int, end: int, table: MergeTable, out: np.ndarray, at: int) -> int:
    """Merge a stretch of text of any length, window by window.

    Of each window the last tokens are given up, as what follows could change them, and the next window begins there.
    Where two windows do not join, the next begins further back and is longer.

    Args:
        data: uint8, valid UTF-8.
        start: the first byte.
        end: the byte after the last.
        table: the merges.
        out: uint32; the tokens go to ``out[at:]``, which must have a place for each byte.
        at: where.

    Returns:
        How many tokens.
    """
    shortest = max(_WINDOW, 8 * table.reach)
    window, first, done = shortest, at, start  # the bytes before ``done`` are spelled by out[first:at]
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
