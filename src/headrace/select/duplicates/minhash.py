"""MinHash signatures by fast similarity sketching (Dahlgaard, Knudsen and Thorup, FOCS 2017, arXiv 1704.04370).

k independent permutations would cost k hashes per shingle. Here, each round hashes a shingle x once. In round i < k it
goes to bin h_i(x) mod k, in round k + b every shingle goes to bin b, and a bin keeps its smallest value (i, h_i(x));
the sketch is finished after the first round that leaves no bin empty. A document with more than about k ln k distinct
shingles takes one round, so one hash per shingle; one with a single shingle takes at most 2k, as many as k
permutations. Each value agrees between two documents with probability equal to their Jaccard similarity, short
documents included, and the mean of k values is at least as concentrated as with k independent ones (Theorem 1 there).
One-permutation hashing with densification is as fast, but has neither property for documents with few shingles.

A value has 64 bits: the round in the upper 16, then 48 of the hash. It exists only until the bands are hashed, so
folding it to 32 bits would gain nothing, and two different shingles agree by chance once in 2**48.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace.flow.kernels import inlined, kernel
from headrace.flow.keys import mix64
from headrace.select.duplicates.shingles import block_buffers, next_block

# Two rounds per bin, and the round has 16 bits.
MOST_VALUES = 1 << 15

# A document whose first round leaves a bin empty has fewer distinct shingles than this times k; the probability of
# anything else is below k * exp(-64).
_DISTINCT_PER_BIN = 64

_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
_STEP = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, the increment of SplitMix64
_HALF = np.uint64(32)
_ROUND_BITS = np.uint64(16)
_HASH_BITS = np.uint64(48)


def signatures(
    points: npt.NDArray[np.uint32],
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    ngram: int,
    words: bool,
    values: int,
) -> npt.NDArray[np.uint64]:
    """The MinHash signature of every document.

    Args:
        points, starts, lengths: cleaned documents, from :func:`headrace.select.clean.clean`.
        ngram: units in a shingle.
        words: whether a unit is a word rather than a code point.
        values: hash values per signature, at most ``MOST_VALUES``.

    Returns:
        uint64[n_docs, values]; the share of equal values in two rows estimates the Jaccard similarity of their shingle
        sets. A document without shingles has ``2**64 - 1`` throughout.
    """
    out = np.empty((len(lengths), values), dtype=np.uint64)
    _signatures(points, starts, lengths, ngram, words, out)
    return out


def band_fingerprints(
    points: npt.NDArray[np.uint32],
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    ngram: int,
    words: bool,
    values: int,
    bands: int,
    rows: int,
) -> npt.NDArray[np.uint64]:
    """The band fingerprints of every document, computed without its signature leaving the cache.

    Band b hashes its own number and the values [b * rows, (b + 1) * rows) of the signature. Two documents are a
    candidate pair if they agree in at least one fingerprint.

    Args:
        points, starts, lengths, ngram, words, values: as for :func:`signatures`.
        bands, rows: with bands * rows <= values.

    Returns:
        uint64[n_docs, bands]. Documents without shingles get fingerprints too, which the caller must ignore.
    """
    out = np.empty((len(lengths), bands), dtype=np.uint64)
    _band_fingerprints(points, starts, lengths, ngram, words, values, rows, out)
    return out


@kernel
def _signatures(
    points: npt.NDArray[np.uint32],
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    ngram: int,
    words: bool,
    out: npt.NDArray[np.uint64],
) -> None:
    buffers = block_buffers(ngram)
    table, distinct = _distinct_buffers(out.shape[1])
    for d in range(len(lengths)):
        _sketch(
            points,
            starts[d],
            starts[d] + lengths[d],
            ngram,
            words,
            out[d],
            buffers,
            table,
            distinct,
        )


@kernel
def _band_fingerprints(
    points: npt.NDArray[np.uint32],
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    ngram: int,
    words: bool,
    values: int,
    rows: int,
    out: npt.NDArray[np.uint64],
) -> None:
    buffers = block_buffers(ngram)
    table, distinct = _distinct_buffers(values)
    sketch = np.empty(values, np.uint64)
    for d in range(len(lengths)):
        _sketch(
            points,
            starts[d],
            starts[d] + lengths[d],
            ngram,
            words,
            sketch,
            buffers,
            table,
            distinct,
        )
        for band in range(out.shape[1]):
            out[d, band] = mix64(np.uint64(band + 1) * _STEP)
        for row in range(rows):
            for band in range(out.shape[1]):
                out[d, band] = mix64(out[d, band] + sketch[band * rows + row])


@kernel
def _distinct_buffers(values: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint64]]:
    """An open-addressing table and a buffer for the distinct shingles of a document that needs further rounds."""
    size = 1
    while size < 2 * _DISTINCT_PER_BIN * values:
        size *= 2
    return np.empty(size, np.int32), np.empty(_DISTINCT_PER_BIN * values, np.uint64)


@kernel
def _sketch(
    points: npt.NDArray[np.uint32],
    start: int,
    end: int,
    ngram: int,
    words: bool,
    sketch: npt.NDArray[np.uint64],
    buffers: npt.NDArray[np.uint64],
    table: npt.NDArray[np.int32],
    distinct: npt.NDArray[np.uint64],
) -> None:
    """Write the sketch of one document to ``sketch``."""
    k = len(sketch)
    sketch[:] = _EMPTY
    total = 0
    count, at, have = next_block(points, start, end, ngram, words, buffers, 0)
    while count:
        total += count
        _scatter(buffers[-1], count, 0, sketch)
        count, at, have = next_block(points, at, end, ngram, words, buffers, have)
    if total == 0 or not _any_empty(sketch):
        return
    size = _distinct(points, start, end, ngram, words, total, buffers, table, distinct)
    for i in range(1, k):
        _scatter(distinct, size, i, sketch)
        if not _any_empty(sketch):
            return
    for b in range(k):
        if sketch[b] == _EMPTY:
            shift = np.uint64(k + b) * _STEP
            least = _EMPTY
            for j in range(size):
                least = min(least, mix64(distinct[j] + shift))
            sketch[b] = (np.uint64(k + b) << _HASH_BITS) | (least >> _ROUND_BITS)


@kernel
def _any_empty(sketch: npt.NDArray[np.uint64]) -> bool:
    most = np.uint64(0)
    for value in sketch:
        most = max(most, value)
    return bool(most == _EMPTY)


@kernel
def _scatter(hashes: npt.NDArray[np.uint64], count: int, i: int, sketch: npt.NDArray[np.uint64]) -> None:
    """Round i < k: each hash to its bin.

    The bin is the upper half of h_i(x) scaled to k (Lemire 2019); the value is the lower half, then the upper, so that
    the two are independent. h_0 is the shingle hash itself, which is already mixed. A bin is written whether or not its
    value changes: in a typical document one hash in four changes it, which no branch predictor can foresee.
    """
    k = np.uint64(len(sketch))
    if i == 0:
        for j in range(count):
            b, value = _bin_and_value(hashes[j], k)
            sketch[b] = min(sketch[b], value)
        return
    shift = np.uint64(i) * _STEP
    mark = np.uint64(i) << _HASH_BITS
    for j in range(count):
        b, value = _bin_and_value(mix64(hashes[j] + shift), k)
        sketch[b] = min(sketch[b], value | mark)


@inlined
def _bin_and_value(x: np.uint64, k: np.uint64) -> tuple[np.uint64, np.uint64]:
    return ((x >> _HALF) * k) >> _HALF, ((x << _HALF) | (x >> _HALF)) >> _ROUND_BITS


@kernel
def _distinct(
    points: npt.NDArray[np.uint32],
    start: int,
    end: int,
    ngram: int,
    words: bool,
    total: int,
    buffers: npt.NDArray[np.uint64],
    table: npt.NDArray[np.int32],
    distinct: npt.NDArray[np.uint64],
) -> int:
    """Collect the distinct shingles of a document with ``total`` shingles; returns their number.

    Further rounds need each shingle once. Without this, a long text with few distinct shingles (a hundred megabytes of
    one letter) would be processed 2k times.
    """
    hashes = buffers[-1]
    used = 1
    while used < min(2 * total, len(table)):
        used *= 2
    table[:used] = -1
    size = 0
    count, at, have = next_block(points, start, end, ngram, words, buffers, 0)
    while count:
        for j in range(count):
            x = hashes[j]
            slot = np.int64(x & np.uint64(used - 1))
            while table[slot] >= 0 and distinct[table[slot]] != x:
                slot = (slot + 1) & (used - 1)
            if table[slot] < 0:
                if size == len(distinct):
                    return size
                table[slot] = size
                distinct[size] = x
                size += 1
        count, at, have = next_block(points, at, end, ngram, words, buffers, have)
    return size
