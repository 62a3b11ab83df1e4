"""The merges of a BPE vocabulary as flat arrays that kernels read."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from headrace.flow.keys import mix64

NONE = np.int64(0x7FFF_FFFF_FFFF_FFFF)
"""What :func:`merge_of` gives for a pair that does not merge: more than every merge."""

_EMPTY = np.int64(-1)
# Most look-ups are of pairs that do not merge and end at the first empty place, so the table is kept sparse.
_PLACES_PER_PAIR = 2.5


class MergeTable(NamedTuple):
    """A vocabulary's merges and what a text's bytes are before any merge.

    A merge is one integer, ``rank << 32 | id of the result``, so that the smaller is the one to do first.

    Attributes:
        pairs: int64[places, 2], open addressing: ``left << 32 | right`` or -1, and its merge.
        byte_ids: int32[256]: the token of each byte.
        char_ids: int32[0x110000], the token of each code point or -1, if symbols are characters and those without a
            token fall back to bytes; of length 0 if symbols are bytes.
        lengths: int64[vocab_size]: bytes of each token.
        reach: bytes of the longest result of a merge.
    """

    pairs: np.ndarray
    byte_ids: np.ndarray
    char_ids: np.ndarray
    lengths: np.ndarray
    reach: int


@numba.njit(cache=True, nogil=True)
def _insert(pairs: np.ndarray, keys: np.ndarray, merges: np.ndarray) -> None:
    mask = np.uint64(pairs.shape[0] - 1)
    for i in range(keys.size):
        place = np.int64(mix64(np.uint64(keys[i])) & mask)
        while pairs[place, 0] not in (_EMPTY, keys[i]):
            place = (place + 1) & np.int64(mask)
        pairs[place, 0] = keys[i]
        pairs[place, 1] = merges[i]


@numba.njit(cache=True, nogil=True)
def merge_of(pairs: np.ndarray, left: int, right: int) -> int:
    """The merge of two tokens that stand side by side: ``rank << 32 | result``, or :data:`NONE`."""
    key = (np.int64(left) << 32) | np.int64(right)
    mask = np.int64(pairs.shape[0] - 1)
    place = np.int64(mix64(np.uint64(key)) & np.uint64(mask))
    while True:
        found = pairs[place, 0]
        if found == key:
            return pairs[place, 1]
        if found == _EMPTY:
            return int(NONE)
        place = (place + 1) & mask


def pair_table(left: np.ndarray, right: np.ndarray, result: np.ndarray) -> np.ndarray:
    """The look-up table of merges.

    Args:
        left: int64[n], ids.
        right: int64[n], ids.
        result: int64[n], ids; merge i has rank i. Of a pair given twice the later rank holds, as in the library.

    Returns:
        int64[places, 2], see :class:`MergeTable`.
    """
    places = 1 << int(np.ceil(np.log2(max(2.0, len(left) * _PLACES_PER_PAIR))))
    pairs = np.full((places, 2), _EMPTY, dtype=np.int64)
    _insert(pairs, (left << 32) | right, (np.arange(len(left), dtype=np.int64) << 32) | result)
    return pairs
