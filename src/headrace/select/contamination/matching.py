"""Choose, for each document, the item it contains most of: its share, and the shortest span that shows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.flow.kernels import kernel
from headrace.select.contamination.index import Index
from headrace.select.contamination.ngrams import Bytes, Hits, Ints, find_ngrams
from headrace.select.contamination.shapes import ShapeTable, find_shapes
from headrace.select.contamination.substrings import Found, PatternTable, find_patterns
from headrace.select.contamination.verbatim import find_verbatim


class ShapeMatches(NamedTuple):
    """The best shape in each document; arrays over documents.

    Attributes:
        item: int64; the item's number, -1 if there is none.
        matched: int64; how many distinct n-grams of the shape the stretch has.
        size: int64; how many the shape has.
        start: int64; the byte in the document where the stretch starts.
        stop: int64; the byte after it.
    """

    item: Ints
    matched: Ints
    size: Ints
    start: Ints
    stop: Ints


class Matches(NamedTuple):
    """The best match in each document; arrays over documents.

    Attributes:
        item: int64; the item's number, -1 if there is no match.
        pattern: int64; the number of the field found whole, -1 if none was.
        matched: int64; how many distinct n-grams of the item the document contains.
        start: int64; the byte in the document where the evidence starts.
        stop: int64; the byte after it.
    """

    item: Ints
    pattern: Ints
    matched: Ints
    start: Ints
    stop: Ints


def match(data: Bytes, offsets: Ints, index: Index) -> Matches:
    """Search documents and choose, for each, the item it contains most of.

    A field found whole beats n-grams, and a longer field a shorter one; among n-grams the larger share wins, then the
    larger number; remaining ties go to the first item.

    Args:
        data: uint8[n_bytes], valid UTF-8.
        offsets: int64[n_docs + 1] of bytes into ``data``.
        index: the benchmarks.
    """
    n = len(offsets) - 1
    best = Matches(np.full(n, -1), np.full(n, -1), *(np.zeros(n, dtype=np.int64) for _ in range(3)))
    hits = find_ngrams(data, offsets, index.grams)
    documents, items, counts = _overlaps(hits, index)
    order = np.lexsort((items, -counts, -(counts / index.sizes[items]), documents))
    _, first = np.unique(documents[order], return_index=True)
    chosen = order[first]
    best.item[documents[chosen]] = items[chosen]
    best.matched[documents[chosen]] = counts[chosen]
    if index.patterns is not None:
        _whole(found_whole(data, offsets, index), (documents, items, counts), index, best)
    edges = np.searchsorted(hits.document, np.arange(n + 1))
    _tighten(hits, edges[:-1], edges[1:], index, best)
    return best


class Every(NamedTuple):
    """Each document with each item that it contains enough of, by document, then by item; int64[m] each.

    Attributes:
        document: the document's index.
        item: the item's number.
        pattern: the number of the text found whole, -1 if none was.
        shape: the program's number in ``index.program_items`` if only its shape was found, else -1.
        matched: how many distinct n-grams the document contains, of the item or the shape.
        size: out of how many.
        start: the byte in the document where the evidence starts.
        stop: the byte after it.
    """

    document: Ints
    item: Ints
    pattern: Ints
    shape: Ints
    matched: Ints
    size: Ints
    start: Ints
    stop: Ints


def match_every(data: Bytes, offsets: Ints, index: Index, overlap: float, shape_overlap: float) -> Every:
    """Search documents for all items, not only the one that a document contains most of.

    Of an item, its longest text found whole counts; without one its n-grams; without enough of these the shape of its
    program.

    Args:
        data: uint8[n_bytes], valid UTF-8.
        offsets: int64[n_docs + 1] of bytes into ``data``.
        index: the benchmarks.
        overlap: share of an item's n-grams from which on it is told.
        shape_overlap: share of a program's shape.
    """
    found: dict[tuple[int, int], tuple[int, ...]] = {}
    whole = found_whole(data, offsets, index)
    for k in np.lexsort((whole.start, whole.pattern, -index.pattern_lengths[whole.pattern])).tolist():
        pattern = int(whole.pattern[k])
        key = int(whole.document[k]), int(index.pattern_items[pattern])
        found.setdefault(key, (pattern, -1, 0, int(index.sizes[key[1]]), int(whole.start[k]), int(whole.stop[k])))
    hits = find_ngrams(data, offsets, index.grams)
    documents, items, counts = _overlaps(hits, index)
    much = counts >= overlap * index.sizes[items]
    documents, items, counts = documents[much], items[much], counts[much]
    edges = np.searchsorted(hits.document, np.arange(len(offsets)))
    best = Matches(items, np.full(len(items), -1), counts, np.zeros_like(items), np.zeros_like(items))
    _tighten(hits, edges[documents], edges[documents + 1], index, best)
    for row in zip(*(column.tolist() for column in (documents, items, counts, best.start, best.stop)), strict=True):
        document, item, count, start, stop = row
        held = found.get((document, item), (-1, -1, 0, int(index.sizes[item]), start, stop))
        found[document, item] = (*held[:2], count, *held[3:])
    if index.shapes is not None:
        for key, told in _every_shape(data, offsets, index, index.shapes, shape_overlap):
            found.setdefault(key, told)
    columns = np.array([(*key, *found[key]) for key in sorted(found)], dtype=np.int64).reshape(-1, 8).T
    return Every(*columns)


def _every_shape(
    data: Bytes, offsets: Ints, index: Index, table: ShapeTable, overlap: float
) -> Iterator[tuple[tuple[int, int], tuple[int, ...]]]:
    """(document, item) and what :func:`match_every` tells, the largest shares first."""
    hits = find_shapes(data, offsets, table)
    shares = hits.matched / table.sizes[hits.shape]
    for k in np.lexsort((hits.shape, -shares)).tolist():
        shape = int(hits.shape[k])
        if shares[k] < overlap:
            return
        numbers = int(hits.matched[k]), int(table.sizes[shape]), int(hits.start[k]), int(hits.stop[k])
        for program in table.owners[table.owner_offsets[shape] : table.owner_offsets[shape + 1]].tolist():
            yield (int(hits.document[k]), int(index.program_items[program])), (-1, program, *numbers)


def _tighten(hits: Hits, firsts: Ints, lasts: Ints, index: Index, best: Matches) -> None:
    """Fill in the spans of matches by n-grams, given where the hits of each one's document begin and end."""
    spans, inside = (hits.gram, hits.start, hits.stop), np.zeros(len(index.grams.hashes), dtype=np.int64)
    _tightest(*spans, firsts, lasts, index.holders, index.holder_offsets, *best, inside)


def match_shapes(data: Bytes, offsets: Ints, index: Index, table: ShapeTable) -> ShapeMatches:
    """Search documents for programs under other names: of each the one with the largest share, then the most n-grams,
    then the first.

    Args:
        data: uint8[n_bytes], valid UTF-8.
        offsets: int64[n_docs + 1] of bytes into ``data``.
        index: the benchmarks.
        table: their shapes.
    """
    n = len(offsets) - 1
    best = ShapeMatches(np.full(n, -1), *(np.zeros(n, dtype=np.int64) for _ in range(4)))
    hits = find_shapes(data, offsets, table)
    items = index.program_items[table.owners[table.owner_offsets[hits.shape]]]
    sizes = table.sizes[hits.shape]
    order = np.lexsort((items, -hits.matched, -(hits.matched / sizes), hits.document))
    _, first = np.unique(hits.document[order], return_index=True)
    chosen = order[first]
    for values, found in zip(best, (items, hits.matched, sizes, hits.start, hits.stop), strict=True):
        values[hits.document[chosen]] = found[chosen]
    return best


def found_whole(data: Bytes, offsets: Ints, index: Index) -> Found:
    """The texts that documents contain whole; none without patterns."""
    if index.patterns is None:
        return Found(*(np.empty(0, dtype=np.int64) for _ in range(4)))
    if isinstance(index.patterns, PatternTable):
        return find_patterns(data, offsets, index.patterns)
    return find_verbatim(data, offsets, index.patterns)


def _overlaps(hits: Hits, index: Index) -> tuple[Ints, Ints, Ints]:
    """Each document and item with n-grams in common, with the number of distinct ones; by document, then by item."""
    grams = len(index.grams.hashes)
    pairs = np.unique(hits.document * grams + hits.gram)
    documents, found = pairs // max(grams, 1), pairs % max(grams, 1)
    many = np.diff(index.holder_offsets)[found]
    within = np.arange(int(many.sum())) - np.repeat(np.cumsum(many) - many, many)
    items = index.holders[np.repeat(index.holder_offsets[found], many) + within]
    keys, counts = np.unique(np.repeat(documents, many) * len(index.items) + items, return_counts=True)
    return keys // len(index.items), keys % len(index.items), counts.astype(np.int64)


def _whole(found: Found, overlaps: tuple[Ints, Ints, Ints], index: Index, best: Matches) -> None:
    """Let fields found whole replace n-gram matches."""
    documents, items, counts = overlaps
    keys = documents * len(index.items) + items
    lengths = index.pattern_lengths[found.pattern]
    order = np.lexsort((found.start, found.pattern, -lengths, found.document))
    _, first = np.unique(found.document[order], return_index=True)
    for f in order[first].tolist():
        document, pattern = int(found.document[f]), int(found.pattern[f])
        item = int(index.pattern_items[pattern])
        at = int(np.searchsorted(keys, document * len(index.items) + item))
        held = at < len(keys) and keys[at] == document * len(index.items) + item
        best.item[document], best.pattern[document] = item, pattern
        best.matched[document] = counts[at] if held else 0
        best.start[document], best.stop[document] = found.start[f], found.stop[f]


@kernel
def _tightest(
    gram: Ints,
    start: Ints,
    stop: Ints,
    firsts: Ints,
    lasts: Ints,
    holders: Ints,
    holder_offsets: Ints,
    item: Ints,
    pattern: Ints,
    matched: Ints,
    begins: Ints,
    ends: Ints,
    inside: npt.NDArray[np.int64],
) -> None:
    """The shortest span of each document with all n-grams it shares with its item; ``inside`` is int64[g] of zeros."""
    for d in range(len(item)):
        if item[d] < 0 or pattern[d] >= 0:
            continue
        first, distinct, shortest = firsts[d], 0, np.int64(-1)
        for last in range(firsts[d], lasts[d]):
            if not _holds(holders, holder_offsets, gram[last], item[d]):
                continue
            inside[gram[last]] += 1
            distinct += inside[gram[last]] == 1
            # Drop what the span does not need at its start.
            while distinct == matched[d]:
                if _holds(holders, holder_offsets, gram[first], item[d]):
                    if shortest < 0 or stop[last] - start[first] < shortest:
                        shortest = stop[last] - start[first]
                        begins[d], ends[d] = start[first], stop[last]
                    inside[gram[first]] -= 1
                    distinct -= inside[gram[first]] == 0
                first += 1
        for h in range(firsts[d], lasts[d]):
            inside[gram[h]] = 0


@kernel
def _holds(holders: Ints, holder_offsets: Ints, gram: int, item: int) -> bool:
    # Binary search. NumPy's would make each process import SciPy, if installed, to load this kernel.
    low, last = holder_offsets[gram], holder_offsets[gram + 1]
    high = last
    while low < high:
        middle = (low + high) // 2
        if holders[middle] < item:
            low = middle + 1
        else:
            high = middle
    return low < last and holders[low] == item
