"""Words already encoded: one lookup instead of the merges, with the same tokens either way.

There are two bounded tables. The *short* one holds words of at most 14 bytes and 4 tokens, which is 98 % of them, two
per cache line; frequent ones stay in the L2 cache. The *long* one holds words of up to 80 bytes and 27 tokens in three
cache lines each, including those that the short one holds or held. In both, the last token may repeat, as in GPT-2's
indentation. Words are compared by their actual bytes, so a hit is never wrong, and the contents only affect how long
encoding takes.

A short entry is four 64-bit words: the word's first 8 bytes; ``the other 6 | bytes << 48 | tokens << 56``; and four
tokens of 32 bits, where those beyond the last repeat the last. A long entry is the word's bytes in ten 64-bit words,
then as 32-bit words ``bytes | tokens << 8`` and the tokens. In both tables entries are paired: a new word takes the
first place and pushes the previous one to the second, where the next push overwrites it, so words that recur stay
longer than those seen once. For short words, only the first entry is checked when many words are looked up together.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.flow.kernels import borrowing

LONGEST = 80
"""Length in bytes of the longest word held: of 5 million words of text and code, 1 in 8,000 is longer."""
MOST = 27
"""Tokens of an encoding that the long table holds; more only if they all repeat the last. Chinese sentences, each of
which is one word for most patterns, have 12 to 27 GPT-2 tokens, and take 7 us to merge."""
MOST_SHORT = 4
"""The same for the short table."""
LONGEST_SHORT = 14
"""Length in bytes of the longest word in the short table: with its length and number of tokens, 16 bytes."""
SPARE = 8
"""Tokens written for a short word, which may have fewer. Twice as many would be vectors, and those take 8 ns."""
TOKEN_BITS = 19
"""Bits per token; the largest vocabularies in use have 2**18."""

_WORDS = LONGEST // 8
_ENTRY = 24  # 64-bit words of a long entry
_META = 2 * _WORDS  # its 32-bit word of length and count; the tokens follow
_SHORT_ENTRY = np.uint64(4)
# Pairs of entries: 8 MB and 12 MB. Of 5 million words of text and code, 0.3 % miss the short table the second time, 0.9
# % with half as many entries, and 1.5 % without pairs; 2 % are the second of their pair.
_SHORT_BITS, _LONG_BITS = 17, 15
_ONE, _TWO, _THREE, _WORD = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(8)
_SIZE, _COUNT, _HIGH, _LOW = np.uint64(48), np.uint64(56), np.uint64(32), np.uint64(0xFFFF_FFFF)

# Odd constants of xxHash64 (Collet); the high bits of the last product are the index (Knuth, TAOCP 3, 6.4).
_PRIME_1, _PRIME_2 = np.uint64(0x9E3779B185EBCA87), np.uint64(0xC2B2AE3D27D4EB4F)
_SHORT_SHIFT, _LONG_SHIFT = np.uint64(64 - _SHORT_BITS), np.uint64(64 - _LONG_BITS)
_FOLD_LONG = np.uint64(32)

# Powers of one: a long word's hash is a polynomial of its 64-bit words.
_POWERS = np.array([pow(0x9E3779B185EBCA87, k + 1, 1 << 64) for k in range(_WORDS)], dtype=np.uint64)
# Masks for the bytes of each 64-bit word that belong to a word of some length: uint64[LONGEST + 1, _WORDS].
_MASKS = np.array(
    [[(1 << 8 * min(8, max(0, size - 8 * k))) - 1 for k in range(_WORDS)] for size in range(LONGEST + 1)],
    dtype=np.uint64,
)
# The same for a short word's two: uint64[LONGEST_SHORT + 2, 2]; the second includes the length. No entry has length 15.
_SHORT_MASKS = _MASKS[: LONGEST_SHORT + 2, :2].copy()
_SHORT_SIZES = np.arange(LONGEST_SHORT + 2, dtype=np.uint64) << _SIZE


class WordCache(NamedTuple):
    """The two tables.

    Attributes:
        short: uint64[4 * entries], aligned to cache lines.
        long: uint64[24 * entries], aligned to cache lines.
        long32: the memory of ``long``, as uint32.
        key: uint64[10], the bytes of the long word looked up last, padded with zeros.
    """

    short: np.ndarray
    long: np.ndarray
    long32: np.ndarray
    key: np.ndarray


def new_cache() -> WordCache:
    """Empty tables; no word has length 0."""
    long = _lines(2 * _ENTRY << _LONG_BITS)
    return WordCache(
        _lines(2 * int(_SHORT_ENTRY) << _SHORT_BITS), long, long.view(np.uint32), np.zeros(_WORDS, np.uint64)
    )


def _lines(size: int) -> np.ndarray:
    """uint64[size] of zeros, aligned to a cache line."""
    raw = np.zeros(size + 8, dtype=np.uint64)
    skip = (-raw.ctypes.data % 64) // 8
    return raw[skip : skip + size]


def u64_view(data: np.ndarray) -> np.ndarray:
    """The eight bytes of text from each byte on as one integer: uint64[n - 7], overlapping, little-endian, of
    uint8[n]."""
    return np.ndarray(max(0, len(data) - 7), np.dtype("<u8"), data.data, 0, (1,))


@borrowing
def _short_key(u64_at: np.ndarray, low: np.uint64, size: np.uint64) -> tuple[np.uint64, np.uint64, np.uint64]:
    """A short word's two 64-bit words and the index of its first entry; those of a longer word match no entry."""
    size = min(size, np.uint64(LONGEST_SHORT + 1))
    a = u64_at[low] & _SHORT_MASKS[size, 0]
    b = (u64_at[low + _WORD] & _SHORT_MASKS[size, 1]) | _SHORT_SIZES[size]
    return a, b, (((a * _PRIME_1) ^ (b * _PRIME_2)) >> _SHORT_SHIFT) << _THREE


@borrowing
def write_known(
    short: np.ndarray, u64_at: np.ndarray, start: int, starts: np.ndarray, i: int, count: int, out: np.ndarray, at: int
) -> tuple[int, int]:  # fmt: skip
    """Write the tokens of words in the short table, up to the first that is not the first of its pair.

    Args:
        short: the table.
        u64_at: the text, see :func:`u64_view`, with 16 bytes more than its words.
        start: the byte that ``starts`` are relative to.
        starts: int32[count + 1], where words start and the last one ends.
        i: the first word to write.
        count: the number of words.
        out: receives the tokens, with room for ``SPARE`` more.
        at: the index of the first token.

    Returns:
        The first word not found, or ``count``; and where its tokens go.
    """
    word, place = np.uint64(i), np.uint64(at)
    begin, low = np.uint64(start), np.uint64(starts[word])
    while word < np.uint64(count):
        high = np.uint64(starts[word + _ONE])
        a, b, entry = _short_key(u64_at, begin + low, high - low)
        held = short[entry + _ONE]
        if ((held ^ b) << _WORD) | (short[entry] ^ a):
            break
        first, second, tokens = short[entry + _TWO], short[entry + _THREE], held >> _COUNT
        last = np.uint32(second >> _HIGH)
        out[place] = np.uint32(first & _LOW)
        out[place + _ONE] = np.uint32(first >> _HIGH)
        out[place + _TWO] = np.uint32(second & _LOW)
        out[place + _THREE] = last
        for k in range(np.uint64(MOST_SHORT), np.uint64(SPARE)):  # written whether they count or not, without a branch
            out[place + k] = last
        for k in range(np.uint64(SPARE), tokens):
            out[place + k] = last
        place += tokens
        low = high
        word += _ONE
    return int(np.int64(word)), int(np.int64(place))


@borrowing
def _ends_alike(out: np.ndarray, at: int, count: int, most: int) -> bool:
    """Whether all of the ``count`` tokens at ``out[at:]`` from the ``most``-th on are the same."""
    alike = True
    for i in range(most, count):
        alike &= bool(out[at + i] == out[at + most - 1])
    return alike


@borrowing
def put_short(short: np.ndarray, u64_at: np.ndarray, low: int, size: int, out: np.ndarray, at: int, count: int) -> None:
    """Store a word of at most ``LONGEST_SHORT`` bytes whose tokens are at ``out[at:]``, if they are few enough."""
    if not _ends_alike(out, at, count, MOST_SHORT):
        return
    a, b, entry = _short_key(u64_at, np.uint64(low), np.uint64(size))
    last = count - 1
    first = np.uint64(out[at]) | (np.uint64(out[at + min(1, last)]) << _HIGH)
    second = np.uint64(out[at + min(2, last)]) | (np.uint64(out[at + min(3, last)]) << _HIGH)
    for k in range(_SHORT_ENTRY):
        short[entry + _SHORT_ENTRY + k] = short[entry + k]
    short[entry], short[entry + _ONE] = a, b | (np.uint64(count) << _COUNT)
    short[entry + _TWO], short[entry + _THREE] = first, second


@borrowing
def promote(short: np.ndarray, u64_at: np.ndarray, low: int, size: int) -> bool:
    """Swap a word's two short entries if the second is the word's."""
    a, b, entry = _short_key(u64_at, np.uint64(low), np.uint64(size))
    other = entry + _SHORT_ENTRY
    if ((short[other + _ONE] ^ b) << _WORD) | (short[other] ^ a):
        return False
    for k in range(_SHORT_ENTRY):
        short[entry + k], short[other + k] = short[other + k], short[entry + k]
    return True


@borrowing
def long_slot(cache: WordCache, u64_at: np.ndarray, low: int, size: int) -> int:
    """The first of the two long entries for a word of at most ``LONGEST`` bytes; makes it the word to look up."""
    key, mixed = cache.key, np.uint64(size)
    for k in range(np.uint64(_WORDS)):
        key[k] = u64_at[np.uint64(low) + _WORD * k] & _MASKS[size, k]
        mixed += key[k] * _POWERS[k]
    mixed = (mixed ^ (mixed >> _FOLD_LONG)) * _PRIME_1
    return int(np.int64(mixed >> _LONG_SHIFT)) * (2 * _ENTRY)


@borrowing
def find_long(cache: WordCache, place: int, size: int) -> int:
    """The entry of the word being looked up in the long table, or -1."""
    long, long32, key = cache.long, cache.long32, cache.key
    for entry in (place, place + _ENTRY):
        other = np.uint64(0)
        for k in range(_WORDS):
            other |= long[entry + k] ^ key[k]
        if other == 0 and np.int64(long32[2 * entry + _META] & 0xFF) == size:
            return entry
    return -1


@borrowing
def read_long(cache: WordCache, entry: int, out: np.ndarray, at: int) -> int:
    """Copy the tokens of a long entry to ``out[at:]``. Returns their number."""
    first = 2 * entry + _META + 1
    count = int(np.int64(cache.long32[first - 1] >> 8))
    for i in range(count):
        out[at + i] = cache.long32[first + min(i, MOST - 1)]
    return count


@borrowing
def put_long(cache: WordCache, place: int, size: int, out: np.ndarray, at: int, count: int) -> None:
    """Store the word being looked up, whose tokens are at ``out[at:]``, if they are few enough."""
    if not _ends_alike(out, at, count, MOST):
        return
    long, long32 = cache.long, cache.long32
    for i in range(_ENTRY):
        long[place + _ENTRY + i] = long[place + i]
    for k in range(_WORDS):
        long[place + k] = cache.key[k]
    long32[2 * place + _META] = size | (count << 8)
    for i in range(min(count, MOST)):
        long32[2 * place + _META + 1 + i] = out[at + i]
