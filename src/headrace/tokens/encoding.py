"""Encode texts in one pass: find the words, look each one up, and merge those that are new."""

from __future__ import annotations

import numpy as np

from headrace.flow.kernels import borrowing, kernel
from headrace.tokens.merge_table import MergeTable
from headrace.tokens.merging import SHORT, Places, merge_long, merge_short, new_places
from headrace.tokens.pieces import TEXT
from headrace.tokens.whole_words import WholeWords, whole_word
from headrace.tokens.word_cache import (
    LONGEST,
    LONGEST_SHORT,
    WordCache,
    find_long,
    long_slot,
    promote,
    put_long,
    put_short,
    read_long,
    write_known,
)
from headrace.tokens.words import Scanner, new_scratch, next_words


@kernel
def encode_texts(
    data: np.ndarray, u64_at: np.ndarray, bounds: np.ndarray, ids: np.ndarray, scanner: Scanner, table: MergeTable,
    whole: WholeWords, cache: WordCache, out: np.ndarray, at: int, ends: np.ndarray,
) -> None:  # fmt: skip
    """Encode pieces of texts chunk by chunk: find a chunk's words, then write the tokens of each.

    Args:
        data: uint8: concatenated pieces, valid UTF-8, followed by at least ``PADDING`` bytes.
        u64_at: the same memory, see :func:`~headrace.tokens.word_cache.u64_view`.
        bounds: int64[n + 1], the start and end of each piece.
        ids: int32[n]: each piece's token, or ``TEXT``.
        scanner: how to split texts into words.
        table: the merges.
        whole: words that are tokens regardless of the merges.
        cache: words already encoded; updated.
        out: uint32, longer than the bytes of the pieces by ``PADDING``, counted from ``at``; receives the tokens.
        at: the index of the first token.
        ends: int64[n]: receives the end of each piece's tokens.
    """
    scratch, places = new_scratch(scanner), new_places()
    starts = scratch.starts
    for piece in range(ends.size):
        start, end = bounds[piece], bounds[piece + 1]
        if ids[piece] != TEXT:
            out[at] = ids[piece]
            at, start = at + 1, end
        while start < end:
            count = next_words(data, start, end, scanner, scratch)
            i = int(np.int64(0))  # with a literal 0, Numba would compile _write_words again
            while True:
                i, at = _write_words(data, u64_at, start, starts, i, count, table, whole, cache, places, out, at)
                if i == count:
                    break
                low, high = start + starts[i], start + starts[i + 1]
                tokens = merge_long(data, low, high, table, out, at)
                _hold(cache, u64_at, low, high - low, out, at, tokens)
                i, at = i + 1, at + tokens
            start += starts[count]
        ends[piece] = at


@borrowing
def _write_words(
    data: np.ndarray, u64_at: np.ndarray, start: int, starts: np.ndarray, i: int, count: int, table: MergeTable,
    whole: WholeWords, cache: WordCache, places: Places, out: np.ndarray, at: int,
) -> tuple[int, int]:  # fmt: skip
    """Write the tokens of words, up to the first one with long merges.

    Returns:
        That word, or ``count``; and where its tokens go.
    """
    while True:
        i, at = write_known(cache.short, u64_at, start, starts, i, count, out, at)
        if i == count:
            return i, at
        low, high = start + starts[i], start + starts[i + 1]
        if high - low <= LONGEST_SHORT and promote(cache.short, u64_at, low, high - low):
            continue
        tokens = _write(data, u64_at, low, high, table, whole, cache, places, out, at)
        if tokens == 0:
            return i, at
        i, at = i + 1, at + tokens


@borrowing
def _write(
    data: np.ndarray, u64_at: np.ndarray, low: int, high: int, table: MergeTable, whole: WholeWords, cache: WordCache,
    places: Places, out: np.ndarray, at: int,
) -> int:  # fmt: skip
    """Write the tokens of a word not in the short table; returns their number, or 0 if its merges are long."""
    size = high - low
    entry = find_long(cache, long_slot(cache, u64_at, low, size), size) if size <= LONGEST else int(np.int64(-1))
    if entry >= 0:
        tokens = read_long(cache, entry, out, at)
        if size <= LONGEST_SHORT:
            put_short(cache.short, u64_at, low, size, out, at, tokens)
        return tokens
    known = whole_word(data, low, high, whole)
    if known >= 0:
        out[at] = known
        tokens = 1
    elif size <= SHORT:
        tokens = merge_short(data, low, high, table, places, out, at)
    else:
        return 0
    _hold(cache, u64_at, low, size, out, at, tokens)
    return tokens


@borrowing
def _hold(cache: WordCache, u64_at: np.ndarray, low: int, size: int, out: np.ndarray, at: int, tokens: int) -> None:
    """Store a word, whose tokens are at ``out[at:]``, in the tables."""
    if size <= LONGEST:
        put_long(cache, long_slot(cache, u64_at, low, size), size, out, at, tokens)
    if size <= LONGEST_SHORT:
        put_short(cache.short, u64_at, low, size, out, at, tokens)
