"""An upper bound of two documents' Jaccard similarity, at a hundredth of the cost of the similarity itself.

Documents in a large component resemble each other, so many pairs share a band yet stay below the threshold. Each
document gets a bitmap in which every shingle sets the bit of its hash. A bit set in A but not in B stands for at least
one shingle of A that B lacks, so the two bitmaps bound both set differences from below and, with the numbers of
distinct shingles, the similarity from above: a pair that reaches the threshold is never rejected. (Bitmaps as a filter
before exact comparison: Sandes, Teodoro and Melo 2020, "Bitmap filter: speeding up exact set similarity joins with
bitwise operations", Information Systems 88.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.flow.kernels import kernel
from headrace.select.duplicates.shingles import block_buffers, next_block

# Minimum bits per shingle, at most twice as many: a shingle missing from the other document then shows with a
# probability of at least 0.88, and pairs below 0.78 can be told from those at 0.8.
BITS = 8

# Distinct shingles are counted in documents with up to this many, in a table of at most 16 MB; in longer documents all
# count as distinct, which gives a valid but weaker bound.
MOST_COUNTED = 1 << 20

_EVEN = np.uint64(0x5555555555555555)
_PAIRS = np.uint64(0x3333333333333333)
_NIBBLES = np.uint64(0x0F0F0F0F0F0F0F0F)
_BYTES = np.uint64(0x0101010101010101)
_ONE = np.uint64(1)
_TWO = np.uint64(2)
_FOUR = np.uint64(4)
_SIX = np.uint64(6)
_TOP = np.uint64(56)
_LOW = np.uint64(63)


@dataclass(frozen=True)
class Sketches:
    """Cleaned documents, each with a bitmap of its shingles.

    Attributes:
        points, starts, lengths: as returned by :func:`headrace.select.clean.clean`.
        bits: uint64[...], all bitmaps.
        bit_starts: int64[n], the start of each bitmap.
        bit_words: int64[n], its number of 64-bit words: a power of two, or 0 for a document without shingles.
        least, most: int64[n], bounds of the number of distinct shingles; equal where they were counted.
    """

    points: npt.NDArray[np.uint32]
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    bits: npt.NDArray[np.uint64]
    bit_starts: npt.NDArray[np.int64]
    bit_words: npt.NDArray[np.int64]
    least: npt.NDArray[np.int64]
    most: npt.NDArray[np.int64]

    def cleaned(self, d: int) -> npt.NDArray[np.uint32]:
        """The code points of a document."""
        start = self.starts[d]
        return self.points[start : start + self.lengths[d]]


def sketch(
    points: npt.NDArray[np.uint32],
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    ngram: int,
    words: bool,
    most_counted: int = MOST_COUNTED,
) -> Sketches:
    """Build the bitmaps of cleaned documents.

    Args:
        points, starts, lengths: cleaned documents, from :func:`headrace.select.clean.clean`.
        ngram: units in a shingle.
        words: whether a unit is a word rather than a code point.
        most_counted: maximum shingles to count; fewer give a looser bound, never a wrong one.
    """
    # A word and its space are at least two code points, and about six on average.
    shingles = lengths // 4 if words else lengths
    at_least = np.maximum(1, -(-shingles * BITS // 64))
    bit_words = np.where(lengths > 0, 1 << np.ceil(np.log2(at_least)).astype(np.int64), 0)
    ends = np.cumsum(bit_words)
    bits = np.zeros(int(bit_words.sum()), dtype=np.uint64)
    least, most = np.zeros(len(lengths), dtype=np.int64), np.zeros(len(lengths), dtype=np.int64)
    counted = int(min(most_counted, lengths.max(initial=0)))
    table = np.empty(1 << (2 * counted).bit_length(), dtype=np.uint64)
    _sketch(points, starts, lengths, ngram, words, most_counted, table, bits, ends - bit_words, bit_words, least, most)
    return Sketches(points, starts, lengths, bits, ends - bit_words, bit_words, least, most)


@kernel
def _sketch(
    points: npt.NDArray[np.uint32],
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    ngram: int,
    words: bool,
    most_counted: int,
    table: npt.NDArray[np.uint64],
    bits: npt.NDArray[np.uint64],
    bit_starts: npt.NDArray[np.int64],
    bit_words: npt.NDArray[np.int64],
    least: npt.NDArray[np.int64],
    most: npt.NDArray[np.int64],
) -> None:
    buffers = block_buffers(ngram)
    hashes = buffers[-1]
    for d in range(len(lengths)):
        counts = lengths[d] <= most_counted  # there are never more shingles than code points
        slots = 1
        while slots < 2 * lengths[d] and counts:
            slots *= 2
        if counts:
            table[:slots] = 0
        slot_mask, word_mask = np.uint64(slots - 1), np.uint64(bit_words[d] - 1)
        distinct, total, zero = 0, 0, 0
        count, at, have = next_block(points, starts[d], starts[d] + lengths[d], ngram, words, buffers, 0)
        while count:
            total += count
            for j in range(count):
                x = hashes[j]
                bits[bit_starts[d] + np.int64((x >> _SIX) & word_mask)] |= _ONE << (x & _LOW)
                if counts:
                    if x == 0:  # marks an empty slot
                        zero = 1
                        continue
                    slot = x & slot_mask
                    while table[slot] != 0 and table[slot] != x:
                        slot = (slot + _ONE) & slot_mask
                    if table[slot] == 0:
                        table[slot] = x
                        distinct += 1
            count, at, have = next_block(points, at, starts[d] + lengths[d], ngram, words, buffers, have)
        most[d] = distinct + zero if counts else total
        least[d] = most[d] if counts else 0


@kernel
def _ones(x: np.uint64) -> np.uint64:
    """The number of set bits."""
    x = x - ((x >> _ONE) & _EVEN)
    x = (x & _PAIRS) + ((x >> _TWO) & _PAIRS)
    x = (x + (x >> _FOUR)) & _NIBBLES
    return (x * _BYTES) >> _TOP


@kernel
def _folded(bits: npt.NDArray[np.uint64], start: int, words: int, word: int, step: int) -> np.uint64:
    """A word of a bitmap folded to ``step`` words."""
    x = bits[start + word]
    for other in range(word + step, words, step):
        x |= bits[start + other]
    return x


@kernel
def jaccard_at_most(
    bits_a: npt.NDArray[np.uint64],
    start_a: int,
    words_a: int,
    least_a: int,
    most_a: int,
    bits_b: npt.NDArray[np.uint64],
    start_b: int,
    words_b: int,
    least_b: int,
    most_b: int,
) -> float:
    """An upper bound of two documents' Jaccard similarity, each given by its part of :class:`Sketches`.

    The bound is a quotient of integers, as the similarity is, and division rounds monotonically: if the bound is below
    a threshold, so is the similarity computed by :func:`headrace.select.duplicates.jaccard.pair_jaccard`.
    """
    only_a, only_b = np.uint64(0), np.uint64(0)
    if words_a == words_b:
        for word in range(words_a):
            x, y = bits_a[start_a + word], bits_b[start_b + word]
            only_a += _ones(x & ~y)
            only_b += _ones(y & ~x)
    else:
        step = min(words_a, words_b)
        for word in range(step):
            x = _folded(bits_a, start_a, words_a, word, step)
            y = _folded(bits_b, start_b, words_b, word, step)
            only_a += _ones(x & ~y)
            only_b += _ones(y & ~x)
    without_b, without_a = np.int64(only_a), np.int64(only_b)
    shared = min(most_a - without_b, most_b - without_a)
    if shared <= 0:
        return 0.0
    return shared / (shared + max(without_b, least_a - shared) + max(without_a, least_b - shared))
