"""Shingles, signatures and bands against plain Python implementations of their definitions."""

from __future__ import annotations

import random
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.select.clean import clean, clean_text
from headrace.select.duplicates.bands import curve, optimal_bands, probability
from headrace.select.duplicates.jaccard import pair_jaccard, shingle_set, text_jaccard
from headrace.select.duplicates.minhash import band_fingerprints, signatures
from headrace.select.duplicates.shingles import BLOCK

M = (1 << 64) - 1
BASE, SPREAD = 0x9FB21C651E98DF25, 0x9E3779B97F4A7C15

SMALL = st.text(st.sampled_from("ab c\nÀ語."), max_size=60)
LONG = st.builds(lambda piece, times, tail: piece * times + tail, SMALL, st.integers(1, 90), SMALL)


def mix64(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & M
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & M
    return x ^ (x >> 31)


def shingle_hashes(text: str, n: int, words: bool) -> list[int]:
    """Every shingle's hash by the definition in the module's docstring, with repeats."""
    cleaned = clean_text(text)
    units = []
    if words:
        for word in cleaned.split():
            h = 1
            for letter in word:
                h = (h * BASE + ord(letter)) & M
            units.append(mix64(h))
    else:
        for letter in cleaned:
            unit = ord(letter) + 1
            units.append(unit if unit < 256 else mix64((unit * SPREAD) & M))
    if not units:
        return []
    if len(units) < n:  # told apart from others of its kind by its length too
        return [mix64((window_hash(units) + len(units)) & M)]
    return [window_hash(units[i : i + n]) for i in range(len(units) - n + 1)]


def window_hash(units: list[int]) -> int:
    h = pack(units[:8])
    for k in range(8, len(units), 8):
        first = min(k, len(units) - 8)
        h = (h * BASE) & M
        h = ((h ^ (h >> 32)) + pack(units[first : first + 8])) & M
    return mix64(h)


def pack(units: list[int]) -> int:
    out = 0
    for k, unit in enumerate(units):
        out ^= ((unit << 8 * k) | (unit >> (64 - 8 * k))) & M
    return out


def sketch(hashes: list[int], k: int) -> list[int]:
    """Fast similarity sketching as in the paper: 2k rounds, a bin keeps its smallest (round, hash)."""
    bins = [M] * k
    for i in range(2 * k):
        for x in set(hashes):
            h = x if i == 0 else mix64((x + i * SPREAD) & M)
            if i < k:
                b = ((h >> 32) * k) >> 32
                value = (((h << 32) & M) | (h >> 32)) >> 16
            else:
                b, value = i - k, h >> 16
            bins[b] = min(bins[b], (i << 48) | value)
    return bins


def fingerprints(values: list[int], bands: int, rows: int) -> list[int]:
    out = []
    for b in range(bands):
        h = mix64(((b + 1) * SPREAD) & M)
        for value in values[b * rows : (b + 1) * rows]:
            h = mix64((h + value) & M)
        out.append(h)
    return out


def packed(texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    raw = [text.encode() for text in texts]
    return clean(np.frombuffer(b"".join(raw), dtype=np.uint8), np.cumsum([0, *map(len, raw)], dtype=np.int64))


@given(st.lists(st.one_of(SMALL, LONG), max_size=4), st.sampled_from([1, 2, 3, 5, 13]), st.booleans())
def test_signatures_equal_the_definition(texts: list[str], n: int, words: bool) -> None:
    got = signatures(*packed(texts), n, words, 16)
    assert got.tolist() == [sketch(shingle_hashes(text, n, words), 16) for text in texts]
    bands = band_fingerprints(*packed(texts), n, words, 16, 5, 3)
    assert bands.tolist() == [fingerprints(row, 5, 3) for row in got.tolist()]


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("n", [1, 7, 13, 64, pytest.param(3000, marks=pytest.mark.slow)])
def test_blocks_join_seamlessly(n: int, words: bool) -> None:
    rng = random.Random(0)
    texts = [
        "".join(rng.choices("abcdefgh ", k=size)) for size in (BLOCK - 1, BLOCK + 2 * n, BLOCK + n + 1, 2 * BLOCK + 5)
    ]
    texts.append("one two " * 2000)
    got = signatures(*packed(texts), n, words, 8)
    assert got.tolist() == [sketch(shingle_hashes(text, n, words), 8) for text in texts]


def test_no_shingles_no_signature() -> None:
    got = signatures(*packed(["", " .!? \n", "a"]), 13, False, 128)
    assert (got[:2] == M).all()
    assert (got[2] != M).all()


def pair_of(similarity: float, size: int, rng: random.Random) -> tuple[str, str, float]:
    """Two texts of about ``size`` one-word shingles with about the given Jaccard similarity, and the true one."""
    shared = round(similarity * size)
    words = ["".join(rng.choices(string.ascii_lowercase, k=10)) for _ in range(2 * size - shared)]
    own = (2 * size - 2 * shared) // 2
    a, b = words[:shared] + words[shared : shared + own], words[:shared] + words[shared + own :]
    rng.shuffle(a)
    rng.shuffle(b)
    return " ".join(a), " ".join(b), len({*a} & {*b}) / len({*a, *b})


@pytest.mark.parametrize("size", [1, 2, 5, 20, 100, 400, 3000])
@pytest.mark.parametrize("similarity", [0.3, 0.8, 0.95])
def test_the_estimate_is_as_good_as_independent_permutations(size: int, similarity: float) -> None:
    rng = random.Random(size)
    pairs = [pair_of(similarity, size, rng) for _ in range(120)]
    a = signatures(*packed([p[0] for p in pairs]), 1, True, 128)
    b = signatures(*packed([p[1] for p in pairs]), 1, True, 128)
    truth = np.array([p[2] for p in pairs])
    errors = (a == b).mean(axis=1) - truth
    variance = truth * (1 - truth) / 128  # of the mean of 128 independent permutations
    assert abs(errors.mean()) <= 4 * np.sqrt(variance.mean() / len(pairs)) + 1e-12
    # The mean square error of 120 pairs stays within four standard deviations of its own expectation, or below it.
    assert (errors**2).mean() <= variance.mean() * (1 + 4 * np.sqrt(2 / len(pairs))) + 1e-12


def test_values_are_spread_over_all_bins_alike() -> None:
    rng = random.Random(5)
    pairs = [pair_of(0.5, 40, rng) for _ in range(400)]
    a = signatures(*packed([p[0] for p in pairs]), 1, True, 64)
    b = signatures(*packed([p[1] for p in pairs]), 1, True, 64)
    truth = np.mean([p[2] for p in pairs])
    agreement = (a == b).mean(axis=0)
    assert (np.abs(agreement - truth) < 5 * np.sqrt(truth * (1 - truth) / len(pairs))).all()


def test_optimal_bands_are_datasketchs() -> None:
    assert optimal_bands(0.8, 128) == (9, 13)
    lsh = pytest.importorskip("datasketch.lsh")
    for threshold, values in [(0.5, 128), (0.7, 128), (0.75, 256), (0.8, 64), (0.9, 100), (0.35, 32)]:
        assert optimal_bands(threshold, values) == lsh._optimal_param(threshold, values, 0.5, 0.5)


def test_candidate_probability() -> None:
    assert probability(0.8, 9, 13) == pytest.approx(0.399, abs=1e-3)  # as the SlimPajama notes have it
    assert probability(0.9, 9, 13) == pytest.approx(0.929, abs=1e-3)
    assert curve(9, 13)["1.00"] == 1.0


@given(st.one_of(SMALL, LONG), st.one_of(SMALL, LONG), st.sampled_from([1, 3, 13]), st.booleans(), st.booleans())
def test_jaccard_equals_that_of_sets(a: str, b: str, n: int, words: bool, related: bool) -> None:
    b = a[: len(a) // 2] + b if related else b
    unit = "words" if words else "characters"
    x, y = shingle_set(a, n, unit), shingle_set(b, n, unit)
    assert {len(set(shingle_hashes(t, n, words))) for t in (a, b)} == {len(x), len(y)}
    want = len(x & y) / len(x | y) if x | y else 0.0
    points, starts, lengths = packed([a, b])
    one, two = (points[s : s + m] for s, m in zip(starts, lengths, strict=True))
    assert text_jaccard(a, b, n, unit) == want
    assert pair_jaccard(one, two, n, words) == want
    assert pair_jaccard(one, two, n, words, pass_shingles=16) == want


@pytest.mark.parametrize(("a", "b"), [("a" * 9, "a" * 10), ("b" * 12, "b" * 11), ("ab" * 5, "ab" * 6)])
@pytest.mark.parametrize("words", [False, True])
def test_texts_shorter_than_a_shingle_differ_by_their_length_too(a: str, b: str, words: bool) -> None:
    one, two = (" ".join(text) if words else text for text in (a, b))
    assert shingle_hashes(one, 13, words) != shingle_hashes(two, 13, words)
