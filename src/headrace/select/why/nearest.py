"""The documents most similar to a text, found by reading them all: for single texts, not for deduplication."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.documents.store import fetch, read_batches, text_buffers
from headrace.flow.artifact import Artifact
from headrace.recipe.schema import Near
from headrace.select.clean import clean
from headrace.select.duplicates.bands import optimal_bands
from headrace.select.duplicates.jaccard import pair_jaccard
from headrace.select.duplicates.minhash import signatures
from headrace.select.duplicates.permuted_minhash import signatures as permuted_signatures
from headrace.select.sidecar import BATCH_BYTES

# Documents compared exactly for each one requested. The estimate from 128 values has a standard error of at most 0.044,
# so the nearest is among the first few.
CANDIDATES = 8


@dataclass(frozen=True)
class Neighbour:
    """A document and how similar it is.

    Attributes:
        row: its global row number.
        jaccard: the exact Jaccard similarity of the shingle sets.
        estimate: the share of equal signature values.
        agrees: whether the two agree in a band, so that deduplication would have made them a candidate pair.
    """

    row: int
    jaccard: float
    estimate: float
    agrees: bool


def nearest(text: str, documents: Artifact, near: Near, most: int = 3, not_row: int | None = None) -> list[Neighbour]:
    """The documents most similar to a text, nearest first.

    Reads every document, at about 100 MB of text per second.

    Args:
        text: normalized like the documents.
        documents: the documents artifact.
        near: defines shingles and the signature.
        most: the maximum number; documents without a shingle in common are never found.
        not_row: a row to exclude: the text's own.
    """
    shape = (near.ngram, near.unit == "words", near.values)
    points = cleaned(text)
    if not len(points):
        return []
    # The search uses the fast signature whatever the recipe says; only whether a band agrees depends on the recipe's.
    start, length = _one(points)
    mine = signatures(points, start, length, *shape)[0]
    best: list[tuple[float, int]] = []
    row = 0
    for shard in range(len(documents.shards)):
        for batch in read_batches(documents.shard_path(shard), ["text"], BATCH_BYTES):
            others, first, sizes = clean(*text_buffers(batch.column("text")))
            share = (signatures(others, first, sizes, *shape) == mine).mean(axis=1)
            share[sizes == 0] = 0
            for at in np.flatnonzero(share).tolist():
                if row + at != not_row:
                    # Of equal estimates, keep the earlier row.
                    best.append((float(share[at]), -(row + at)))
            best = heapq.nlargest(CANDIDATES * most, best)
            row += batch.num_rows
    if not best:
        return []
    table = fetch(documents, [-negative for _, negative in best], ["text"])
    bands = (near.bands, near.rows) if near.bands and near.rows else optimal_bands(near.threshold, near.values)
    found = []
    for (estimate, negative), other in zip(best, table.column("text").to_pylist(), strict=True):
        theirs = cleaned(other)
        jaccard = pair_jaccard(points, theirs, *shape[:2])
        agrees = _agree(_signature(points, near), _signature(theirs, near), *bands)
        found.append(Neighbour(-negative, jaccard, estimate, agrees))
    return sorted(found, key=lambda neighbour: (-neighbour.jaccard, neighbour.row))[:most]


def _agree(a: npt.NDArray[np.uint64], b: npt.NDArray[np.uint64], bands: int, rows: int) -> bool:
    """Whether two signatures agree in all values of some band."""
    equal = (a == b)[: bands * rows].reshape(bands, rows)
    return bool(equal.all(axis=1).any())


def cleaned(text: str) -> npt.NDArray[np.uint32]:
    """The code points of a text as deduplication compares it."""
    data = np.frombuffer(text.encode(), dtype=np.uint8)
    points, _, lengths = clean(data, np.array([0, len(data)], dtype=np.int64))
    return points[: lengths[0]]


def _one(points: npt.NDArray[np.uint32]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Start and length of a text that is alone in its buffer."""
    return np.zeros(1, dtype=np.int64), np.array([len(points)], dtype=np.int64)


def _signature(points: npt.NDArray[np.uint32], near: Near) -> npt.NDArray[np.uint64]:
    """uint64[values]: the recipe's signature of one cleaned text."""
    make = signatures if near.signature == "fast" else permuted_signatures
    start, length = _one(points)
    return make(points, start, length, near.ngram, near.unit == "words", near.values)[0]
