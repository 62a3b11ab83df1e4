"""MinHash by permutations of SHA-1, bit for bit as in datasketch 1.5.9, which deduplicated SlimPajama.

The hash h of a shingle is the first four bytes of the SHA-1 of its UTF-8 bytes. Value j of a signature is the minimum
of ``((a[j] * h + b[j]) mod 2**64 mod (2**61 - 1)) mod 2**32`` over all shingles, with a and b drawn as datasketch does
for seed 1. This equals ``MinHash(num_perm=values, seed=1, hashfunc=sha1_hash32)`` in datasketch before 2.0, and
``scheme="legacy"`` since.

SlimPajama's shingles come from nltk's ``ngrams``, which returns none for a text with fewer units than a shingle: all
such documents, including empty ones, have the signature ``2**32 - 1`` throughout, and so are candidates of each other.
:mod:`headrace.select.duplicates.minhash` is many times faster, and leaves those documents alone.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from headrace.flow.kernels import kernel
from headrace.flow.keys import mix64
from headrace.select.duplicates.sha1 import LANES, ONE_BLOCK, hash_lanes, hash_points, lane_buffers

_PRIME = np.uint64((1 << 61) - 1)
_PRIME_BITS = np.uint64(61)
_NONE = np.uint64(0xFFFFFFFF)
_STEP = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, to number the bands as in minhash.py
_SPACE = np.uint32(0x20)

# Masks for the last word of a block whose text ends r bytes into it, r = 0 to 4, and the end marker after it.
_KEPT = np.array([0, 0xFF000000, 0xFFFF0000, 0xFFFFFF00, 0xFFFFFFFF], dtype=np.uint32)
_MARK = np.array([0x80000000, 0x00800000, 0x00008000, 0x00000080, 0], dtype=np.uint32)


@lru_cache(maxsize=8)
def permutations(values: int, seed: int = 1) -> npt.NDArray[np.uint64]:
    """The multipliers and increments, drawn as datasketch does: uint64[2, values].

    NumPy's RandomState is frozen: a seed gives the same numbers in every version (NEP 19).
    """
    draw = np.random.RandomState(seed)
    prime = int(_PRIME)
    pairs = [(draw.randint(1, prime, dtype=np.uint64), draw.randint(0, prime, dtype=np.uint64)) for _ in range(values)]
    return np.ascontiguousarray(np.array(pairs, dtype=np.uint64).T)


def signatures(
    points: npt.NDArray[np.uint32],
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    ngram: int,
    words: bool,
    values: int,
) -> npt.NDArray[np.uint64]:
    """The signature of every document.

    Args:
        points, starts, lengths: cleaned documents, from :func:`headrace.select.clean.clean`.
        ngram: units in a shingle.
        words: whether a unit is a word (shingles are words separated by spaces) rather than a code point.
        values: hash values per signature.

    Returns:
        uint64[n_docs, values] of 32-bit numbers, equal to datasketch's ``hashvalues``.
    """
    out = np.empty((len(lengths), values), dtype=np.uint64)
    _signatures(points, starts, lengths, ngram, words, permutations(values), out)
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
    """The band fingerprints of every document: a 64-bit hash of what datasketch's LSH uses as the band's key.

    Args:
        points, starts, lengths, ngram, words, values: as for :func:`signatures`.
        bands, rows: with bands * rows <= values.

    Returns:
        uint64[n_docs, bands]. Every document counts, including those without shingles.
    """
    # Values are independent of each other, so those in no band are not computed.
    signature = signatures(points, starts, lengths, ngram, words, bands * rows)
    out = np.empty((len(lengths), bands), dtype=np.uint64)
    _fold(signature, rows, out)
    return out


@kernel
def _fold(signature: npt.NDArray[np.uint64], rows: int, out: npt.NDArray[np.uint64]) -> None:
    for d in range(out.shape[0]):
        for band in range(out.shape[1]):
            h = mix64(np.uint64(band + 1) * _STEP)
            for row in range(rows):
                h = mix64(h + signature[d, band * rows + row])
            out[d, band] = h


@kernel
def _signatures(
    points: npt.NDArray[np.uint32],
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    ngram: int,
    words: bool,
    permuted: npt.NDArray[np.uint64],
    out: npt.NDArray[np.uint64],
) -> None:
    schedule, state = lane_buffers()
    hashes = np.empty(LANES, np.uint64)
    units = LANES + ngram
    text = (np.empty(4 * units + 4, np.uint32), np.empty(4 * units, np.uint32), np.empty(units + 1, np.int64))
    expanded = np.empty(80, np.uint64)
    for d in range(len(lengths)):
        start, end = starts[d], starts[d] + lengths[d]
        out[d] = _NONE
        if words:
            _by_words(points, start, end, ngram, permuted, hashes, expanded, out[d])
        elif 4 * ngram <= ONE_BLOCK:
            for at in range(start, end - ngram + 1, LANES):
                count = min(LANES, end - ngram + 1 - at)
                _fill(points, at, count, ngram, text, schedule)
                hash_lanes(schedule, state, hashes)
                _lower(hashes, count, permuted, out[d])
        else:
            for at in range(start, end - ngram + 1, LANES):
                count = min(LANES, end - ngram + 1 - at)
                for j in range(count):
                    hashes[j] = hash_points(points, at + j, at + j + ngram, expanded)
                _lower(hashes, count, permuted, out[d])


@kernel
def _by_words(
    points: npt.NDArray[np.uint32],
    start: int,
    end: int,
    ngram: int,
    permuted: npt.NDArray[np.uint64],
    hashes: npt.NDArray[np.uint64],
    expanded: npt.NDArray[np.uint64],
    sketch: npt.NDArray[np.uint64],
) -> None:
    """All word windows of a document, each from its first word's start to its last word's end."""
    first, last, held = start, start, 0
    count = 0
    while last < end:
        while last < end and points[last] != _SPACE:
            last += 1
        held += 1
        if held >= ngram:
            hashes[count] = hash_points(points, first, last, expanded)
            count += 1
            if count == LANES:
                _lower(hashes, count, permuted, sketch)
                count = 0
            while first < last and points[first] != _SPACE:
                first += 1
            first += 1
        last += 1
    _lower(hashes, count, permuted, sketch)


@kernel
def _fill(
    points: npt.NDArray[np.uint32],
    at: int,
    count: int,
    ngram: int,
    text: tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32], npt.NDArray[np.int64]],
    schedule: npt.NDArray[np.uint32],
) -> None:
    """One padded block per lane, for the windows of ``ngram`` code points that start at ``at`` and after.

    The content of lanes from ``count`` on does not matter.
    """
    data, big, places = text
    size = 0
    for i in range(count + ngram - 1):
        point = points[at + i]
        places[i] = size
        if point < 0x80:
            data[size] = point
            size += 1
        elif point < 0x800:
            data[size], data[size + 1] = 0xC0 | (point >> 6), 0x80 | (point & 0x3F)
            size += 2
        elif point < 0x10000:
            data[size], data[size + 1], data[size + 2] = (
                0xE0 | (point >> 12),
                0x80 | ((point >> 6) & 0x3F),
                0x80 | (point & 0x3F),
            )
            size += 3
        else:
            data[size], data[size + 1] = 0xF0 | (point >> 18), 0x80 | ((point >> 12) & 0x3F)
            data[size + 2], data[size + 3] = 0x80 | ((point >> 6) & 0x3F), 0x80 | (point & 0x3F)
            size += 4
    places[count + ngram - 1] = size
    data[size : size + 4] = 0
    for i in range(size):
        big[i] = (data[i] << 24) | (data[i + 1] << 16) | (data[i + 2] << 8) | data[i + 3]
    for lane in range(count):
        first = places[lane]
        length = places[lane + ngram] - first
        full = length >> 2
        for word in range(full):
            schedule[word, lane] = big[first + 4 * word]
        rest = length & 3
        tail = big[first + 4 * full] & _KEPT[rest] if rest else np.uint32(0)
        schedule[full, lane] = tail | _MARK[rest]
        for word in range(full + 1, 15):
            schedule[word, lane] = 0
        schedule[15, lane] = 8 * length


@kernel
def _lower(
    hashes: npt.NDArray[np.uint64], count: int, permuted: npt.NDArray[np.uint64], sketch: npt.NDArray[np.uint64]
) -> None:
    """Lower a signature to the minimum of each permutation of some hashes."""
    for j in range(len(sketch)):
        a, b = permuted[0, j], permuted[1, j]
        least = np.uint32(sketch[j])
        for i in range(count):
            x = a * hashes[i] + b
            x = (x & _PRIME) + (x >> _PRIME_BITS)
            # Modulo 2**32, subtracting the prime is adding one.
            least = min(least, np.uint32(x + np.uint64(x >= _PRIME)))
        sketch[j] = np.uint64(least)
