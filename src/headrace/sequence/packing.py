"""Arrange documents in rows, using only their lengths: concatenation and best-fit packing.

A row holds ``seq_len + 1`` tokens, which make ``seq_len`` pairs of input and target.

Concatenation joins all documents, each followed by the end-of-document token, into one stream. Row ``r`` covers the
stream's tokens ``r * seq_len`` to ``r * seq_len + seq_len`` inclusive: neighboring rows share one token, so every token
but the first is a target exactly once. What does not fill a last row is the tail.

Best fit (Ding et al., "Fewer Truncations Improve Language Modeling", ICML 2024, arXiv 2404.10830, section 3) cuts only
documents longer than a row, and puts each piece, longest first, into the fullest row that still has room. The pieces of
a cut document share one token, as concatenated rows do.

For long contexts, best fit opens no row for a piece shorter than half of one: every row is then mostly one document,
and short ones fill its gap or are left out. Concatenation has no gaps: there, the longest documents come first.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.flow.kernels import kernel


class Segments(NamedTuple):
    """Slices of documents and their positions. All arrays have one entry per segment.

    Attributes:
        document: int64, index of the document among those given.
        row: int64.
        start: int32, position in the row.
        length: int32, tokens.
        offset: int32, first token within the document.
    """

    document: np.ndarray
    row: np.ndarray
    start: np.ndarray
    length: np.ndarray
    offset: np.ndarray


def rows_of(tokens: int, seq_len: int) -> int:
    """Rows filled by a stream of this many tokens."""
    return max(0, (tokens - 1) // seq_len)


@kernel
def _count_concatenated(lengths: np.ndarray, first: int, seq_len: int, rows: int) -> int:
    total = 0
    at = first
    for i in range(lengths.size):
        end = at + lengths[i]
        if end > at:
            low = (at - 1) // seq_len if at > 0 else 0
            high = min((end - 1) // seq_len, rows - 1)
            total += max(0, high - low + 1)
        at = end
    return total


@kernel
def _concatenate(
    lengths: np.ndarray,
    first: int,
    seq_len: int,
    rows: int,
    document: np.ndarray,
    row: np.ndarray,
    start: np.ndarray,
    length: np.ndarray,
    offset: np.ndarray,
    overlap: np.ndarray,
    tail: np.ndarray,
) -> None:
    last = rows * seq_len + 1 if rows > 0 else 0  # stream tokens from here on are in no row
    n = 0
    at = first
    for i in range(lengths.size):
        end = at + lengths[i]
        tail[i] = max(0, end - max(at, last))
        placed = 0
        if end > at:
            # A token at a multiple of seq_len is also the last of the previous row.
            low = (at - 1) // seq_len if at > 0 else 0
            high = min((end - 1) // seq_len, rows - 1)
            for r in range(low, high + 1):
                begin = max(at, r * seq_len)
                stop = min(end, r * seq_len + seq_len + 1)
                document[n] = i
                row[n] = r
                start[n] = begin - r * seq_len
                length[n] = stop - begin
                offset[n] = begin - at
                placed += stop - begin
                n += 1
        overlap[i] = placed - (lengths[i] - tail[i])
        at = end


def concatenate(lengths: np.ndarray, first: int, seq_len: int, rows: int) -> tuple[Segments, np.ndarray, np.ndarray]:
    """Arrange consecutive documents of a stream in rows.

    Args:
        lengths: int64[n], tokens of each document, including its end.
        first: stream position of the first document's first token.
        seq_len: targets per row.
        rows: rows in the whole stream; what lies beyond them is the tail.

    Returns:
        The segments in stream order (a token shared by two rows is in a segment of each), and for each document
        int64[n] its tokens that are also in a second row, and int64[n] its tokens that are in no row.
    """
    lengths = np.ascontiguousarray(lengths, dtype=np.int64)
    total = _count_concatenated(lengths, first, seq_len, rows)
    segments = _room(total)
    overlap, tail = np.empty(lengths.size, dtype=np.int64), np.empty(lengths.size, dtype=np.int64)
    _concatenate(lengths, first, seq_len, rows, *segments, overlap, tail)
    return segments, overlap, tail


def _room(n: int) -> Segments:
    return Segments(
        np.empty(n, dtype=np.int64),
        np.empty(n, dtype=np.int64),
        np.empty(n, dtype=np.int32),
        np.empty(n, dtype=np.int32),
        np.empty(n, dtype=np.int32),
    )


def with_ends(tokens: np.ndarray, seq_len: int) -> np.ndarray:
    """Tokens of each document in best-fit rows: one more for its end, unless it exactly fills a row without it.

    Args:
        tokens: int64[n], excluding ends.
        seq_len: targets per row.

    Returns:
        int64[n].
    """
    return np.asarray(tokens + (tokens != seq_len + 1))


@kernel
def _cut(totals: np.ndarray, seq_len: int, document: np.ndarray, length: np.ndarray, offset: np.ndarray) -> None:
    n = 0
    for i in range(totals.size):
        at = 0
        while True:
            piece = min(totals[i] - at, seq_len + 1)
            document[n] = i
            length[n] = piece
            offset[n] = at
            n += 1
            at += seq_len
            if at + 1 >= totals[i]:
                break


@kernel
def _next_room(tree: np.ndarray, size: int, least: int) -> int:
    """The smallest remaining room of at least ``least`` in any row, or -1."""
    node = size + least
    if tree[node] > 0:
        return least
    while node > 1:
        if node % 2 == 0 and tree[node + 1] > 0:
            node += 1
            while node < size:
                node = 2 * node if tree[2 * node] > 0 else 2 * node + 1
            return node - size
        node //= 2
    return -1


@kernel
def _add(tree: np.ndarray, size: int, room: int, step: int) -> None:
    node = size + room
    while node >= 1:
        tree[node] += step
        node //= 2


@kernel
def _best_fit(
    order: np.ndarray, length: np.ndarray, capacity: int, least: int, size: int, row: np.ndarray, start: np.ndarray
) -> int:
    tree = np.zeros(2 * size, dtype=np.int32)  # number of rows by remaining room, summed over power-of-two ranges
    newest = np.full(capacity + 1, -1, dtype=np.int64)  # by remaining room: the last row to reach it
    older = np.empty(order.size, dtype=np.int64)  # by row: the row that had the same room before it
    rows = 0
    for k in range(order.size):
        i = order[k]
        need = length[i]
        room = _next_room(tree, size, need)
        if room < 0 and need < least:
            row[i] = -1
            continue
        if room < 0:
            r = rows
            rows += 1
            room = capacity
        else:
            r = newest[room]
            newest[room] = older[r]
            _add(tree, size, room, -1)
        row[i] = r
        start[i] = capacity - room
        left = room - need
        if left > 0:
            older[r] = newest[left]
            newest[left] = r
            _add(tree, size, left, 1)
    return rows


def best_fit(totals: np.ndarray, seq_len: int, least: int = 0) -> tuple[Segments, int]:
    """Pack a block of documents by best-fit decreasing.

    The longest pieces come first, those of equal length in the order given. Among rows with equal room, the one that
    reached it last is taken. Time is O(n log n + n log seq_len).

    Args:
        totals: int64[n], tokens of each document from :func:`with_ends`.
        seq_len: targets per row.
        least: tokens of a piece for which a row is opened; shorter ones that fit into none are left out.

    Returns:
        The segments by document and offset, and the number of rows. Rows are numbered in the order they were opened.
        Only the end of a document can be missing: pieces before the last are as long as a row.
    """
    totals = np.ascontiguousarray(totals, dtype=np.int64)
    capacity = seq_len + 1
    pieces = int(np.maximum(1, -((1 - totals) // seq_len)).sum())
    segments = _room(pieces)
    _cut(totals, seq_len, segments.document, segments.length, segments.offset)
    order = np.argsort(-segments.length, kind="stable")
    size = 1 << capacity.bit_length()  # greater than capacity
    rows = _best_fit(order, segments.length, capacity, least, size, segments.row, segments.start)
    if least:
        placed = segments.row >= 0
        segments = Segments(*(values[placed] for values in segments))
    return segments, int(rows)


def longest_first(lengths: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The order of files in which the longest training documents come first, those of equal length as given.

    Args:
        lengths: int64[files], their tokens.
        first: int64[documents], the first file of each; the files of a document follow one another.

    Returns:
        int64[files], indices.
    """
    order = np.argsort(-np.add.reduceat(lengths, first), kind="stable")
    sizes = np.diff(np.append(first, len(lengths)))[order]
    return np.asarray(np.repeat(first[order] - (np.cumsum(sizes) - sizes), sizes) + np.arange(len(lengths)))


def divided(segments: Segments, first: np.ndarray, lengths: np.ndarray) -> tuple[Segments, np.ndarray]:
    """Segments of training documents as segments of the files that they are made of.

    Args:
        segments: by training document.
        first: int64[documents], the first file of each; the files of a document follow one another.
        lengths: int64[files], their tokens, which are all of the documents' tokens.

    Returns:
        The segments by file, and bool[m], whether each goes on with the training document of the one before it.
    """
    ends = np.cumsum(lengths)
    starts = ends - lengths
    begin = starts[first][segments.document] + segments.offset
    stop = begin + segments.length
    low, high = (np.searchsorted(ends, at, side="right") for at in (begin, stop - 1))
    counts = high - low + 1
    of = np.repeat(np.arange(len(counts)), counts)
    file = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts - low, counts)
    left, right = np.maximum(begin[of], starts[file]), np.minimum(stop[of], ends[file])
    real = right > left  # a file may have no tokens
    of, file, left, right = of[real], file[real], left[real], right[real]
    start = (segments.start[of] + left - begin[of]).astype(np.int32)
    about = (right - left).astype(np.int32), (left - starts[file]).astype(np.int32)
    return Segments(file.astype(np.int64), segments.row[of], start, *about), left > begin[of]
