"""Words already encoded: one look-up instead of the merges, and the same tokens either way.

Two bounded tables. The *short* one holds words of at most 8 bytes and 3 tokens, nine words in ten, in 16 bytes each;
it stays in the second-level cache. The *long* one holds words of up to 32 bytes and 7 tokens in a cache line each, and
all that the short one holds or held. In both the last token may come more often, as in GPT-2's indentation. A word is
looked up by its bytes themselves, so a hit is never wrong, and what is held decides how long encoding takes and nothing
else.

A short entry is the word's bytes, and ``token 0 | token 1 << 19 | token 2 << 38 | tokens << 57 | (bytes - 1) << 61``,
which is never 0; a new word replaces what was there. A long entry is the word's bytes in four 64-bit words, then as
32-bit words ``bytes | tokens << 8`` and the tokens. Two long entries are neighbours: a new word takes the first place
and pushes the one that was there to the second, where the next overwrites it, so that words which come again stay
longer than those that came once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.flow.kernels import borrowing

LONGEST = 32
"""Bytes of the longest word that is held. Of English, code and HTML 98 to 99.9 % of the bytes are in no longer ones."""
MOST = 7
"""Tokens of an encoding that the long table holds; more only if they are all the last. Others are rare."""
MOST_SHORT = 3
"""The same for the short table."""
SPARE = 8
"""Tokens that are written where a word may have fewer: at most as many as the bytes that the short table looks at."""
TOKEN_BITS = 19
"""Bits of a token in the short table; the largest vocabularies in use have 2**18."""

_ENTRY = 8  # 64-bit words of a long entry
_META = 8  # its 32-bit word of length and count; tokens follow
# 1 MB and 16 MB.
_SHORT_BITS, _LONG_BITS = 16, 18
_TOKEN = np.uint64((1 << TOKEN_BITS) - 1)
_SECOND, _THIRD = np.uint64(TOKEN_BITS), np.uint64(2 * TOKEN_BITS)
_COUNT, _SIZE, _FIFTEEN = np.uint64(57), np.uint64(61), np.uint64(15)
_ZERO, _ONE, _SEVEN, _WORD = np.uint64(0), np.uint64(1), np.uint64(7), np.uint64(8)
_LAST_BIT = np.uint64(63)

# Odd constants of xxHash64 (Collet); the high bits of the last product are the place (Knuth, TAOCP 3, 6.4).
_PRIME_1, _PRIME_2 = np.uint64(0x9E3779B185EBCA87), np.uint64(0xC2B2AE3D27D4EB4F)
_PRIME_3, _PRIME_4 = np.uint64(0x165667B19E3779F9), np.uint64(0x27D4EB2F165667C5)
_SHORT_SHIFT, _LONG_SHIFT = np.uint64(64 - _SHORT_BITS), np.uint64(64 - _LONG_BITS + 1)
_FOLD, _FOLD_LONG = np.uint64(29), np.uint64(32)

# The bytes of each 64-bit word that belong to a word of so many bytes: uint64[LONGEST + 1, 4].
_MASKS = np.array(
    [[(1 << 8 * min(8, max(0, size - 8 * k))) - 1 for k in range(4)] for size in range(LONGEST + 1)], dtype=np.uint64
)


class WordCache(NamedTuple):
    """The two tables.

    Attributes:
        short: uint64[2 * entries].
        long: uint64[8 * entries], on cache lines.
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


@borrowing
def eight_bytes(words: np.ndarray, at: np.uint64) -> np.uint64:
    """Eight bytes of text from any byte on as one integer.

    Args:
        words: uint64: the text as little-endian words, with a word more than it needs.
        at: the first byte.
    """
    index, shift = at >> np.uint64(3), (at & _SEVEN) << np.uint64(3)
    # A shift by 64 is not defined, so the other part goes in two steps.
    return (words[index] >> shift) | ((words[index + _ONE] << _ONE) << (_LAST_BIT - shift))


@borrowing
def find_short(
    short: np.ndarray, words: np.ndarray, start: int, starts: np.ndarray, count: int,
    places: np.ndarray, found: np.ndarray, missing: np.ndarray,
) -> int:  # fmt: skip
    """Look words up in the short table, without a branch: what is not near yet is fetched for many at once.

    Args:
        short: the table.
        words: the text as 64-bit words, with two more than it needs.
        start: the byte that ``starts`` counts from.
        starts: int32[count + 1], where words begin and the last ends.
        count: how many.
        places: uint32[count]: gets where each is, or would be put.
        found: uint64[count]: gets each one's entry, or 0.
        missing: int32[count]: gets the words that were not found.

    Returns:
        How many were not found.
    """
    gone = np.uint64(0)
    for i in range(np.uint64(count)):
        low, size = np.uint64(start + starts[i]), np.uint64(starts[i + 1] - starts[i])
        word = eight_bytes(words, low) & _MASKS[min(size, _WORD), 0]
        mixed = (word + size) * _PRIME_1
        mixed = (mixed ^ (mixed >> _FOLD)) * _PRIME_2
        place = (mixed >> _SHORT_SHIFT) << _ONE
        meta = short[place + _ONE]
        same = (short[place] == word) & ((meta >> _SIZE) + _ONE == size)
        places[i] = place
        found[i] = meta if same else _ZERO
        missing[gone] = i
        gone += np.uint64(not same or meta == _ZERO)
    return int(np.int64(gone))


@borrowing
def take_short(meta: np.uint64, out: np.ndarray, at: int) -> int:
    """The tokens of a short entry go to ``out[at:]``, which has room for ``SPARE``. Returns how many they are."""
    out[at] = meta & _TOKEN
    out[at + 1] = (meta >> _SECOND) & _TOKEN
    last = (meta >> _THIRD) & _TOKEN
    for i in range(MOST_SHORT - 1, SPARE):  # counted or not, without a branch
        out[at + i] = last
    return int(np.int64((meta >> _COUNT) & _FIFTEEN))


@borrowing
def _ends_alike(out: np.ndarray, at: int, count: int, most: int) -> bool:
    """Whether of ``count`` tokens at ``out[at:]`` all from the ``most``-th on are one."""
    alike = True
    for i in range(most, count):
        alike &= bool(out[at + i] == out[at + most - 1])
    return alike


@borrowing
def put_short(short: np.ndarray, place: int, word: np.uint64, size: int, out: np.ndarray, at: int, count: int) -> None:
    """Hold a word of at most 8 bytes whose tokens are at ``out[at:]``, if they are few enough."""
    if not _ends_alike(out, at, count, MOST_SHORT):
        return
    meta = np.uint64(out[at]) | (np.uint64(count) << _COUNT) | (np.uint64(size - 1) << _SIZE)
    if count > 1:
        meta |= np.uint64(out[at + 1]) << _SECOND
    if count > 2:
        meta |= np.uint64(out[at + 2]) << _THIRD
    short[place], short[place + 1] = word, meta


@borrowing
def four_words(words: np.ndarray, low: int, size: int) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """The bytes of a word of at most 32, padded with zeros."""
    at = np.uint64(low)
    a = eight_bytes(words, at) & _MASKS[size, 0]
    b = eight_bytes(words, at + _WORD) & _MASKS[size, 1]
    c = eight_bytes(words, at + np.uint64(16)) & _MASKS[size, 2]
    d = eight_bytes(words, at + np.uint64(24)) & _MASKS[size, 3]
    return a, b, c, d


@borrowing
def long_place(a: np.uint64, b: np.uint64, c: np.uint64, d: np.uint64, size: int) -> int:
    """The first of the two entries of a word in the long table; a to d are its bytes, padded with zeros."""
    mixed = a ^ (b * _PRIME_2) ^ (c * _PRIME_3) ^ (d * _PRIME_4) ^ np.uint64(size)
    mixed = (mixed ^ (mixed >> _FOLD_LONG)) * _PRIME_1
    return int(np.int64(mixed >> _LONG_SHIFT)) * (2 * _ENTRY)


@borrowing
def find_long(
    cache: WordCache, place: int, a: np.uint64, b: np.uint64, c: np.uint64, d: np.uint64, size: int
) -> int:  # fmt: skip
    """The entry of a word in the long table, or -1."""
    long, long32 = cache.long, cache.long32
    for entry in (place, place + _ENTRY):
        same = (
            (np.int64(long32[2 * entry + _META] & 0xFF) == size)
            & (long[entry] == a) & (long[entry + 1] == b) & (long[entry + 2] == c) & (long[entry + 3] == d)
        )  # fmt: skip
        if same:
            return entry
    return -1


@borrowing
def take_long(cache: WordCache, entry: int, out: np.ndarray, at: int) -> int:
    """The tokens of a long entry go to ``out[at:]``, which has room for ``MOST`` or more. Returns how many they are."""
    first = 2 * entry + _META + 1
    count = int(np.int64(cache.long32[first - 1] >> 8))
    for i in range(MOST):  # counted or not, without a branch
        out[at + i] = cache.long32[first + i]
    for i in range(MOST, count):
        out[at + i] = cache.long32[first + MOST - 1]
    return count


@borrowing
def put_long(
    cache: WordCache, place: int, a: np.uint64, b: np.uint64, c: np.uint64, d: np.uint64, size: int,
    out: np.ndarray, at: int, count: int,
) -> bool:  # fmt: skip
    """Hold a word whose tokens are at ``out[at:]``; False if they are too many."""
    if not _ends_alike(out, at, count, MOST):
        return False
    long, long32 = cache.long, cache.long32
    for i in range(_ENTRY):
        long[place + _ENTRY + i] = long[place + i]
    long[place], long[place + 1], long[place + 2], long[place + 3] = a, b, c, d
    long32[2 * place + _META] = size | (count << 8)
    for i in range(min(count, MOST)):
        long32[2 * place + _META + 1 + i] = out[at + i]
    return True
