"""The texts of a partition's members: read in pieces, their band fingerprints, and the cleaned texts of a few.

Texts of documents that have duplicates are sent to the partition of their component, in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from headrace.flow.slices import gather

if TYPE_CHECKING:
    from headrace.recipe.schema import Near
    from headrace.select.duplicates.jaccard_bound import Sketches

TEXT = np.dtype([("row", "<u8"), ("length", "<u4")])
"""A text as sent to the partition of its component; the payload is the text."""

Texts = Iterable[tuple[npt.NDArray[np.void], npt.NDArray[np.uint8]]]
"""Records of :data:`TEXT` with their payload."""

# Text cleaned at a time: its code points take four times as much, too large for an L2 cache anyway.
PIECE_BYTES = 2 << 20


def pieces(
    texts: Texts, rows: npt.NDArray[np.uint64]
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8], npt.NDArray[np.int64]]]:
    """The texts of some rows, as they arrive.

    Args:
        texts: all texts of the partition.
        rows: uint64[n], distinct, in any order: those wanted.

    Yields:
        ``(which, data, offsets)``: int64[m] indices into ``rows`` and their texts, uint8[...] and int64[m + 1], at most
        ``PIECE_BYTES`` in all unless a single one is longer.

    Raises:
        ValueError: a text is missing (raised after the last piece).
    """
    order = np.argsort(rows)
    ascending = rows[order]
    arrived = 0
    for records, payload in texts:
        mine = np.flatnonzero(among(records["row"], ascending))
        lengths = records["length"].astype(np.int64)
        starts = np.cumsum(lengths) - lengths
        arrived += len(mine)
        at = 0
        while at < len(mine):
            fits = np.searchsorted(np.cumsum(lengths[mine[at:]]), PIECE_BYTES, side="right")
            some = mine[at : at + max(1, int(fits))]
            which = order[np.searchsorted(ascending, records["row"][some])]
            yield which, gather(payload, starts[some], lengths[some]), offsets_of(lengths[some])
            at += len(some)
    if arrived != len(rows):
        raise ValueError(f"{len(rows)} texts are wanted, {arrived} have arrived")


def buckets(
    texts: Texts, rows: npt.NDArray[np.uint64], components: npt.NDArray[np.uint64], near: Near
) -> npt.NDArray[np.int64]:
    """Find candidates: documents of one component that share a band fingerprint.

    Args:
        texts: all texts of the partition.
        rows: uint64[n], the documents.
        components: uint64[n], the component of each.
        near: how candidates are found.

    Returns:
        int64[n, bands]: documents that share a fingerprint have its bucket's number; -1 where a document shares its
        with none.
    """
    from headrace.select.duplicates.fingerprints import bands_of, fingerprints

    bands = bands_of(near)[0]
    found = np.zeros((len(rows), bands), dtype=np.uint64)
    has = np.zeros(len(rows), dtype=bool)
    for which, data, offsets in pieces(texts, rows):
        some, values = fingerprints(near, data, offsets)
        found[which[some]], has[which[some]] = values, True
    out = np.full(len(rows) * bands, -1, dtype=np.int64)
    entries = np.flatnonzero(np.repeat(has, bands))
    values, of = found.ravel()[entries], components[entries // bands]
    order = np.lexsort([values, of])
    values, of = values[order], of[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (values[1:] != values[:-1]) | (of[1:] != of[:-1])
    number = np.cumsum(first) - 1
    shared = np.bincount(number)[number] > 1
    out[entries[order[shared]]] = number[shared]
    return out.reshape(len(rows), bands)


def load(texts: Texts, rows: npt.NDArray[np.uint64], sizes: npt.NDArray[np.int64], near: Near) -> Sketches:
    """Clean and hold the texts of some rows.

    Args:
        texts: all texts of the partition.
        rows: uint64[n], the rows to hold.
        sizes: int64[n], the bytes of each text.
        near: defines shingles.

    Returns:
        Their sketches, in the order of ``rows``.
    """
    from headrace.select.clean import clean
    from headrace.select.duplicates.jaccard_bound import sketch

    ends = np.cumsum(sizes)
    starts = ends - sizes
    held = np.empty(int(sizes.sum()), dtype=np.uint32)  # cleaning never produces more code points than there were bytes
    lengths = np.zeros(len(rows), dtype=np.int64)
    for which, data, offsets in pieces(texts, rows):
        points, begin, long = clean(data, offsets)
        lengths[which] = long
        for i, at, n in zip(which.tolist(), begin.tolist(), long.tolist(), strict=True):
            held[starts[i] : starts[i] + n] = points[at : at + n]
    return sketch(held, starts, lengths, near.ngram, near.unit == "words")


def stream(texts: Texts, rows: npt.NDArray[np.uint64], near: Near, visit: Callable[[int, Sketches, int], None]) -> None:
    """Clean the texts of some rows one by one, as they arrive.

    Args:
        texts: all texts of the partition.
        rows: uint64[n], the rows to clean.
        near: defines shingles.
        visit: called with each row's index in ``rows``, some sketches, and the index of its own among these.
    """
    from headrace.select.clean import clean
    from headrace.select.duplicates.jaccard_bound import sketch

    for which, data, offsets in pieces(texts, rows):
        sketches = sketch(*clean(data, offsets), near.ngram, near.unit == "words")
        for d, position in enumerate(which.tolist()):
            visit(position, sketches, d)


def among(values: npt.NDArray[np.uint64], ascending: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Which values occur in an ascending array: bool[len(values)]."""
    if not len(ascending):
        return np.zeros(len(values), dtype=bool)
    at = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return np.asarray(ascending[at] == values)


def offsets_of(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Start and end of documents with these lengths: int64[n + 1]."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
