"""The merges of a BPE vocabulary as flat arrays for kernels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.flow.kernels import borrowing, kernel
from headrace.flow.keys import mix64
from headrace.tokens.word_cache import TOKEN_BITS

NONE = np.int64(0xFFFF_FFFF)
"""Returned by :func:`merge_of` for a pair that does not merge: greater than every rank."""

MOST_RANKS = 1 << (64 - 2 * TOKEN_BITS)
"""A table entry has no room for more merges."""

ASCII = 128

_EMPTY = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_BUCKET = 4  # entries; half a cache line
# With a choice of two buckets, the fuller one holds at most 4 entries at this load, for 50,000 merges.
_LOAD = 0.5
_LEFT, _RANK = np.uint64(TOKEN_BITS), np.uint64(64 - 2 * TOKEN_BITS)
_LOW_RANK = np.uint64(MOST_RANKS - 1)
_HALF = np.uint64(32)


class MergeTable(NamedTuple):
    """A vocabulary's merges, and the symbols of a text before any merge.

    Attributes:
        pairs: uint64[power of two]: ``(left << 19 | right) << 26 | rank``, or all ones. A pair is in one of two buckets
            of 4, so a lookup is 8 comparisons without branches, whether or not the pair merges, which no branch
            predictor could guess.
        results: int32[merges]: the token that each rank produces.
        ascii_ids: int32[128], the symbols of ASCII characters before any merge.
        ascii_ranks: uint32[128 * 128], the rank of each pair of these, or ``NONE``.
        byte_ids: int32[256]: the token of each byte.
        char_ids: int32[0x110000], the token of each code point or -1, if symbols are characters and those without a
            token fall back to bytes; of length 0 if symbols are bytes.
        lengths: int64[vocab_size]: bytes of each token.
        reach: length in bytes of the longest result of a merge.
    """

    pairs: np.ndarray
    results: np.ndarray
    ascii_ids: np.ndarray
    ascii_ranks: np.ndarray
    byte_ids: np.ndarray
    char_ids: np.ndarray
    lengths: np.ndarray
    reach: int


@borrowing
def _key(left: int, right: int) -> np.uint64:
    return (np.uint64(left) << _LEFT) | np.uint64(right)


@borrowing
def _buckets(key: np.uint64, size: int) -> tuple[np.uint64, np.uint64]:
    """The first entries of a pair's two buckets."""
    mixed, mask = mix64(key), np.uint64(size - _BUCKET)
    return mixed & mask, (mixed >> _HALF) & mask


@kernel
def _insert(pairs: np.ndarray, left: np.ndarray, right: np.ndarray) -> bool:
    """Insert all pairs into the table, each in its emptier bucket; False if both were full."""
    for rank in range(left.size):
        key = _key(left[rank], right[rank])
        one, two = _buckets(key, pairs.size)
        places = (pairs[one : one + _BUCKET], pairs[two : two + _BUCKET])
        used = [0, 0]
        known = False
        for side in range(2):
            for k in range(_BUCKET):
                if places[side][k] != _EMPTY:
                    used[side] += 1
                    if places[side][k] >> _RANK == key:
                        places[side][k] = (key << _RANK) | np.uint64(rank)
                        known = True
        if known:
            continue
        side = 0 if used[0] <= used[1] else 1
        if used[side] == _BUCKET:
            return False
        places[side][used[side]] = (key << _RANK) | np.uint64(rank)
    return True


@borrowing
def merge_of(table: MergeTable, left: int, right: int) -> int:
    """The rank of the merge of two adjacent tokens, or :data:`NONE`."""
    key = _key(left, right)
    one, two = _buckets(key, table.pairs.size)
    rank = np.uint64(NONE)
    for k in range(np.uint64(_BUCKET)):
        a, b = table.pairs[one + k], table.pairs[two + k]
        rank = a & _LOW_RANK if a >> _RANK == key else rank
        rank = b & _LOW_RANK if b >> _RANK == key else rank
    return int(np.int64(rank))


@kernel
def _rank_ascii(table: MergeTable) -> None:
    for a in range(ASCII):
        for b in range(ASCII):
            table.ascii_ranks[a * ASCII + b] = merge_of(table, table.ascii_ids[a], table.ascii_ids[b])


def merge_table(
    left: np.ndarray, right: np.ndarray, result: np.ndarray, byte_ids: np.ndarray, char_ids: np.ndarray,
    lengths: np.ndarray,
) -> MergeTable:  # fmt: skip
    """Build the table of a vocabulary's merges.

    Args:
        left: int64[n], ids.
        right: int64[n], ids.
        result: int64[n], ids; merge i has rank i. If a pair occurs twice, the later rank counts, as in the library.
        byte_ids, char_ids, lengths: see :class:`MergeTable`.
    """
    size = 1 << int(np.ceil(np.log2(max(2.0 * _BUCKET, len(left) / _LOAD))))
    pairs = np.full(size, _EMPTY, dtype=np.uint64)
    while not _insert(pairs, left, right):
        pairs = np.full(2 * pairs.size, _EMPTY, dtype=np.uint64)
    characters = char_ids[:ASCII] if char_ids.size else np.full(ASCII, -1, np.int32)
    table = MergeTable(
        pairs,
        result.astype(np.int32),
        np.where(characters < 0, byte_ids[:ASCII], characters).astype(np.int32),
        np.empty(ASCII * ASCII, dtype=np.uint32),
        byte_ids,
        char_ids,
        lengths,
        int(lengths[result].max(initial=1)),
    )
    _rank_ascii(table)
    return table
