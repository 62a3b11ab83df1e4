"""Words already encoded: one look-up instead of the merges, and the same tokens either way.

Two bounded tables. The *short* one holds words of at most 8 bytes and 2 tokens, nine words in ten, in 16 bytes each;
it is small enough to stay near the processor. The *long* one holds words of up to 32 bytes and 23 tokens, two cache
lines each of which mostly the first is read, and all that the short one holds or held. A word is looked up by its bytes
themselves, so a hit is never wrong, and what is held decides how long encoding takes and nothing else.

A short entry is the word's bytes, and ``token 0 | token 1 << 28 | tokens << 56 | bytes << 60``; a new word replaces
what was there. A long entry is the word's bytes in four 64-bit words, then as 32-bit words ``bytes | tokens << 8`` and
the tokens. Two long entries are neighbours: a new word takes the first place and pushes the one that was there to the
second, where the next overwrites it, so that words which come again stay longer than those that came once.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

LONGEST = 32
"""Bytes of the longest word that is held. Of English, code and HTML 98 to 99.9 % of the bytes are in no longer ones."""
MOST = 23
"""Tokens of the longest encoding that is held. With 7, GPT-2's indentation, a token for each space, was left out."""

_ENTRY = 16  # 64-bit words of a long entry
_META = 8  # its 32-bit word of length and count; tokens follow
# 512 kB and 16 MB. On 8 MB of Python code and GPT-2's vocabulary, 0.6 % of the words are not found the second time;
# with 8 MB 1.4 %.
_SHORT_BITS, _LONG_BITS = 15, 17
_TOKEN = np.uint64((1 << 28) - 1)

# Odd constants of xxHash64 (Collet); the high bits of the last product are the place (Knuth, TAOCP 3, 6.4).
_PRIME_1, _PRIME_2 = np.uint64(0x9E3779B185EBCA87), np.uint64(0xC2B2AE3D27D4EB4F)
_PRIME_3, _PRIME_4 = np.uint64(0x165667B19E3779F9), np.uint64(0x27D4EB2F165667C5)


class WordCache(NamedTuple):
    """The two tables.

    Attributes:
        short: uint64[2 * entries].
        long: uint64[16 * entries], on a cache line.
        long32: the memory of ``long`` as uint32.
    """

    short: np.ndarray
    long: np.ndarray
    long32: np.ndarray


def new_cache() -> WordCache:
    """Empty tables: no word has length 0."""
    size = (1 << _LONG_BITS) * _ENTRY
    raw = np.zeros(size + _ENTRY, dtype=np.uint64)
    skip = (-raw.ctypes.data % 64) // 8
    long = raw[skip : skip + size]
    return WordCache(np.zeros(2 << _SHORT_BITS, dtype=np.uint64), long, long.view(np.uint32))


@numba.njit(cache=True, nogil=True)
def word_at(words: np.ndarray, at: int, size: int) -> np.uint64:
    """Eight bytes of text from any byte on as one integer; bytes from ``size`` on, if it is less than 8, are zero.

    Args:
        words: uint64: the text as little-endian words, with a word more than it needs.
        at: the first byte.
        size: at least 1.
    """
    index, shift = at >> 3, np.uint64((at & 7) << 3)
    low = words[index] >> shift
    # A shift by 64 is not defined, so the other part goes in two steps.
    high = (words[index + 1] << np.uint64(1)) << (np.uint64(63) - shift)
    cut = np.uint64(max(8 - size, 0) << 3)
    return ((low | high) << cut) >> cut


@numba.njit(cache=True, nogil=True)
def short_place(word: np.uint64, size: int) -> int:
    """Where a word of at most 8 bytes is in the short table."""
    mixed = (word + np.uint64(size)) * _PRIME_1
    mixed = (mixed ^ (mixed >> np.uint64(29))) * _PRIME_2
    return int(np.int64(mixed >> np.uint64(64 - _SHORT_BITS))) * 2


@numba.njit(cache=True, nogil=True)
def take_short(short: np.ndarray, place: int, word: np.uint64, size: int, out: np.ndarray, at: int) -> int:
    """Look a word up in the short table; its tokens go to ``out[at:]``, which has room for 2. Returns 0 or how many."""
    meta = short[place + 1]
    if short[place] != word or np.int64(meta >> np.uint64(60)) != size:
        return 0
    out[at] = meta & _TOKEN
    out[at + 1] = (meta >> np.uint64(28)) & _TOKEN
    return int(np.int64(meta >> np.uint64(56))) & 15


@numba.njit(cache=True, nogil=True)
def put_short(short: np.ndarray, place: int, word: np.uint64, size: int, out: np.ndarray, at: int, count: int) -> None:
    """Hold a word of at most 8 bytes whose tokens, at most 2, are at ``out[at:]``."""
    second = np.uint64(out[at + 1]) if count > 1 else np.uint64(0)
    short[place] = word
    short[place + 1] = (
        np.uint64(out[at]) | (second << np.uint64(28)) | (np.uint64(count) << np.uint64(56))
        | (np.uint64(size) << np.uint64(60))
    )  # fmt: skip


@numba.njit(cache=True, nogil=True)
def long_place(a: np.uint64, b: np.uint64, c: np.uint64, d: np.uint64, size: int) -> int:
    """The first of the two entries of a word in the long table; a to d are its bytes, padded with zeros."""
    mixed = a ^ (b * _PRIME_2) ^ (c * _PRIME_3) ^ (d * _PRIME_4) ^ np.uint64(size)
    mixed = (mixed ^ (mixed >> np.uint64(32))) * _PRIME_1
    return int(np.int64(mixed >> np.uint64(64 - _LONG_BITS + 1))) * (2 * _ENTRY)


@numba.njit(cache=True, nogil=True)
def take_long(
    cache: WordCache, place: int, a: np.uint64, b: np.uint64, c: np.uint64, d: np.uint64, size: int,
    out: np.ndarray, at: int,
) -> int:  # fmt: skip
    """Look a word up in the long table; its tokens go to ``out[at:]``. Returns 0 or how many."""
    for entry in (place, place + _ENTRY):
        meta = int(np.int64(cache.long32[2 * entry + _META]))
        if (meta & 0xFF) == size and cache.long[entry] == a and cache.long[entry + 1] == b:
            if size > 16 and (cache.long[entry + 2] != c or cache.long[entry + 3] != d):
                continue
            count = meta >> 8
            for i in range(count):
                out[at + i] = cache.long32[2 * entry + _META + 1 + i]
            return count
    return 0


@numba.njit(cache=True, nogil=True)
def put_long(
    cache: WordCache, place: int, a: np.uint64, b: np.uint64, c: np.uint64, d: np.uint64, size: int,
    out: np.ndarray, at: int, count: int,
) -> None:  # fmt: skip
    """Hold a word whose tokens, at most MOST, are at ``out[at:]``."""
    long, long32 = cache.long, cache.long32
    for i in range(_ENTRY):
        long[place + _ENTRY + i] = long[place + i]
    long[place], long[place + 1], long[place + 2], long[place + 3] = a, b, c, d
    long32[2 * place + _META] = size | (count << 8)
    for i in range(count):
        long32[2 * place + _META + 1 + i] = out[at + i]
