"""Signatures: clean, 13-character shingles, 128 MinHash values a document; against rensa, FastSketchLSH, datatrove and
datasketch."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import xxhash

from bench.corpus import texts as read_texts
from bench.harness import Crew, Result, Setting, Side, compare, megabytes, parts, require, result, sample
from headrace.select.clean import clean, clean_text
from headrace.select.duplicates.minhash import signatures
from headrace.tokens.engine import Texts

NGRAM, VALUES = 13, 128
# Odd and without structure: FNV's 64-bit prime.
POLYNOMIAL = np.uint64(0x100000001B3)
# A batch of the duplicates step: its code points stay in the cache.
BATCH_BYTES = 1 << 18
# Megabytes for the peers, which take seconds for that much: rensa some 8 MB/s, datatrove 0.5, datasketch 0.2.
RENSA_MB, SLOW_MB, LOOP_MB = 16.0, 1.0, 0.25
# The standard deviation of 128 values is at most 0.044 a pair; the mean of a hundred pairs' errors is far below.
MEAN_ERROR, PAIRS = 0.04, 100


def shingles(text: str) -> list[str]:
    """The 13-character shingles of a cleaned text, as SlimPajama's script makes them; a shorter text is one."""
    cleaned = clean_text(text)
    return [cleaned[i : i + NGRAM] for i in range(max(1, len(cleaned) - NGRAM + 1))]


def batches(texts: list[str]) -> list[Texts]:
    """Texts in Arrow form, a batch of the duplicates step each."""
    out: list[Texts] = []
    held: list[str] = []
    size = 0
    for text in texts:
        held.append(text)
        size += len(text)
        if size >= BATCH_BYTES:
            out.append(Texts.of(held))
            held, size = [], 0
    return [*out, Texts.of(held)] if held else out


def ours(given: list[Texts], make: Callable[..., Any] = signatures) -> list[np.ndarray]:
    """Our signatures of batches of texts."""
    return [make(*clean(batch.data, batch.offsets), NGRAM, False, VALUES) for batch in given]


def rensa_digests(texts: list[str]) -> list[list[int]]:
    """rensa's signatures; its bulk calls were no faster here, since the shingles are made in Python either way."""
    from rensa import RMinHash

    out = []
    for text in texts:
        sketch = RMinHash(num_perm=VALUES, seed=1)
        sketch.update(shingles(text))
        out.append(sketch.digest())
    return out


def rensa_bulk(texts: list[str]) -> Any:
    """rensa's signatures by its call for many documents at once."""
    from rensa import RMinHash

    return RMinHash.digest_matrix_from_token_sets([shingles(text) for text in texts], VALUES, 1)


def sketches(texts: list[str]) -> np.ndarray:
    """FastSketchLSH's signatures (the same sketch as ours) from text; cleaning and shingles are Python's."""
    from FastSketchLSH import FastSimilaritySketch

    return FastSimilaritySketch(VALUES, 1).batch([shingles(text) for text in texts], num_threads=1)


class Hashed(NamedTuple):
    """The shingles of documents as hashes of 64 bits.

    Attributes:
        hashes: uint64[shingles].
        bounds: uint64[documents + 1], where each document's begin and end.
    """

    hashes: np.ndarray
    bounds: np.ndarray


def hashed(texts: list[str]) -> Hashed:
    """Cleaned texts' shingles, hashed by a polynomial of their code points; without repetitions, as a set has none."""
    out = []
    for text in texts:
        points = np.frombuffer(clean_text(text).encode("utf-32-le"), np.uint32).astype(np.uint64)
        size = min(NGRAM, len(points))
        sums = np.zeros(len(points) - size + 1, np.uint64)
        for k in range(size):
            sums = sums * POLYNOMIAL + points[k : len(points) - size + 1 + k]
        out.append(np.unique((sums ^ (sums >> np.uint64(32))) * POLYNOMIAL))
    return Hashed(np.concatenate(out), np.cumsum([0, *map(len, out)]).astype(np.uint64))


def sketches_of_hashes(given: Hashed) -> np.ndarray:
    """FastSketchLSH's signatures from hashes that are there already, by its quickest call."""
    from FastSketchLSH import FastSimilaritySketch

    return FastSimilaritySketch(VALUES, 1).batch_csr(given.hashes, given.bounds, prehashed=True, num_threads=1)


def loop(texts: list[str]) -> list[Any]:
    """The reference's loop (SlimPajama, ``to_hash.py``): nltk's ngrams of characters, each to datasketch ``update``."""
    from datasketch import MinHash
    from datasketch.hashfunc import sha1_hash32
    from nltk import ngrams

    out = []
    for text in texts:
        # What the defaults were in the version that the reference used; those of 2.0 are slower.
        sketch = MinHash(num_perm=VALUES, seed=1, hashfunc=sha1_hash32, scheme="legacy")
        for shingle in map("".join, ngrams(clean_text(text), NGRAM)):
            sketch.update(shingle.encode())
        out.append(sketch)
    return out


def datatrove_step(texts: list[str]) -> None:
    """datatrove's signature step, its own shingles of words and its files of buckets included; 9 buckets of 13."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup import MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig

    with tempfile.TemporaryDirectory() as folder:
        step = MinhashDedupSignature(folder, MinhashConfig(n_grams=NGRAM, num_buckets=9, hashes_per_bucket=13))
        step._hash_func = lambda text: xxhash.xxh64_intdigest(text.encode())  # its own fails with xxhash 4
        step.run(iter([Document(text=text, id=str(i)) for i, text in enumerate(texts)]))


def perturbed(text: str, rate: float, draw: random.Random) -> str:
    """A text with a share of its words replaced."""
    return " ".join(f"w{draw.randrange(999)}" if draw.random() < rate else word for word in text.split(" "))


def check_estimates(texts: list[str], other: Callable[[list[str]], list[list[int]]]) -> None:
    """Both sides' estimates of pairs' Jaccard similarity against the truth, pairs of short texts included."""
    draw = random.Random(1)
    chosen = [text for text in texts if len(text) > 400][:PAIRS]
    chosen = [text[: draw.choice([60, 300, 20_000])] for text in chosen]
    copies = [perturbed(text, draw.choice([0, 0.01, 0.05, 0.2]), draw) for text in chosen]
    mine = np.concatenate(ours(batches([*chosen, *copies])))
    theirs = np.array(other([*chosen, *copies]))
    n = len(chosen)
    sets = [(set(shingles(a)), set(shingles(b))) for a, b in zip(chosen, copies, strict=True)]
    truth = np.array([len(a & b) / len(a | b) for a, b in sets])
    for who, values in (("ours", mine), ("the peer's", theirs)):
        error = np.abs((values[:n] == values[n:]).mean(axis=1) - truth).mean() if n else 0.0
        require(error < MEAN_ERROR, f"{who} estimates are off by {error:.3f} on average")


def measured(setting: Setting, name: str, peer: str, target: float, mb: float, task: Callable[[Any], Any],
             texts: list[str], make: Callable[..., Any] = signatures, ready: Callable[[list[str]], Any] = list
             ) -> Result:  # fmt: skip
    """Ours on all texts against a peer on a sample of them, each core with its share.

    Args:
        ready: what the peer is given in place of texts, made outside the time.
    """
    small = sample(texts, mb * setting.cores)
    mine = [batches(part) for part in parts(texts, setting.cores)]
    others = [ready(part) for part in parts(small, setting.cores)]
    # The peer is imported and the kernels loaded before the processes are forked.
    ours(mine[0][:1], make)
    task(ready(small[:1]))
    note = f"the peer on every {max(1, len(texts) // max(1, len(small)))}th document"
    if ready is not list:
        note += "; its part is the sketch alone, ours cleaning, shingles and hashes too"

    def theirs(part: int) -> None:
        task(others[part])

    with Crew(setting, lambda part: len(ours(mine[part], make))) as us, Crew(setting, theirs) as them:
        sides = us.side(megabytes(texts)), them.side(megabytes(small))
        return compare(setting, name, peer, "MB/s", *sides, target, note=note)


def unavailable(setting: Setting, peer: str, target: float, texts: list[str], error: Exception) -> Result:
    """Ours alone, and why the peer is not there."""
    alone = Side(lambda: ours(batches(texts)), megabytes(texts))
    rate = [megabytes(texts) / alone.seconds()]
    return result(setting, "signature", peer, "MB/s", rate, None, target, note=f"unavailable: {error!r}"[:300])


def fast_sketch(setting: Setting, texts: list[str]) -> Iterator[Result]:
    """Ours against FastSketchLSH: both from text, and its sketch from ready-made hashes against all that ours does."""
    peers = "fastsketchlsh, from text", "fastsketchlsh, from ready-made hashes"
    try:
        check_estimates(texts, sketches)
    except ImportError as error:
        yield from (unavailable(setting, peer, 1, texts, error) for peer in peers)
        return
    check_estimates(texts, lambda some: sketches_of_hashes(hashed(some)))
    mb = min(RENSA_MB, setting.mb / 2)
    yield measured(setting, "signature", peers[0], 1, mb, sketches, texts)
    yield measured(setting, "signature", peers[1], 1, mb, sketches_of_hashes, texts, ready=hashed)


def run(setting: Setting) -> Iterator[Result]:
    """Ours against each peer in turn."""
    texts = read_texts(setting.corpus)
    check_estimates(texts, rensa_digests)
    yield measured(setting, "signature", "rensa", 15, min(RENSA_MB, setting.mb / 2), rensa_digests, texts)
    yield measured(setting, "signature", "rensa, its bulk call", 15, min(RENSA_MB, setting.mb / 2), rensa_bulk, texts)
    yield from fast_sketch(setting, texts)
    try:
        datatrove_step(["a few words only, to see whether it runs here " * 3])
    except (ImportError, OSError, LookupError) as error:
        yield unavailable(setting, "datatrove", 200, texts, error)
    else:
        yield measured(setting, "signature", "datatrove", 200, min(SLOW_MB, setting.mb / 4), datatrove_step, texts)
    yield measured(
        setting, "signature", "datasketch, update per shingle", 600, min(LOOP_MB, setting.mb / 8), loop, texts
    )
