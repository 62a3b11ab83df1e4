"""Texts to tokens in one pass: find the words, look each up, merge those that are new."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.flow.kernels import borrowing, kernel
from headrace.tokens.merge_table import MergeTable
from headrace.tokens.merging import Places, merge_long, merge_short, new_places
from headrace.tokens.pieces import TEXT
from headrace.tokens.whole_words import WholeWords, whole_word
from headrace.tokens.word_cache import (
    LONGEST,
    WordCache,
    find_long,
    find_short,
    four_words,
    long_place,
    put_long,
    put_short,
    take_long,
    take_short,
)
from headrace.tokens.words import Scanner, Scratch, new_scratch, next_words


class Words(NamedTuple):
    """Room for the words of a stretch.

    Attributes:
        scratch: where they begin.
        near: uint32, their places in the short table.
        found: uint64, their entries there, or 0.
        missing: int32, those that were not there.
        far: int64, the entries of those in the long table, or -1.
        places: for the merges of a new word.
    """

    scratch: Scratch
    near: np.ndarray
    found: np.ndarray
    missing: np.ndarray
    far: np.ndarray
    places: Places


@kernel
def encode_texts(
    data: np.ndarray, words: np.ndarray, bounds: np.ndarray, ids: np.ndarray, scanner: Scanner, table: MergeTable,
    whole: WholeWords, cache: WordCache, out: np.ndarray, at: int, ends: np.ndarray,
) -> None:  # fmt: skip
    """Encode pieces of texts.

    A stretch of text at a time: find its words, look all of them up, then write the tokens in order. The processor
    waits for memory in the second step only, and there for many words at once.

    Args:
        data: uint8: the pieces one after another, valid UTF-8, with ``PADDING`` bytes or more after them.
        words: the same memory as uint64.
        bounds: int64[n + 1], where pieces begin and end.
        ids: int32[n]: the token that a piece is, or ``TEXT``.
        scanner: how texts are cut into words.
        table: the merges.
        whole: words that are tokens whatever the merges say.
        cache: words already encoded; changes.
        out: uint32, longer by ``PADDING`` than the pieces have bytes beyond ``at``: gets the tokens.
        at: where the first token goes.
        ends: int64[n]: gets the end of each piece's tokens.
    """
    room = scanner.stretch + 1
    scratch = new_scratch(scanner)
    near, found, missing = np.empty(room, np.uint32), np.empty(room, np.uint64), np.empty(room, np.int32)
    held = Words(scratch, near, found, missing, np.empty(room, np.int64), new_places())
    for piece in range(ends.size):
        start, end = bounds[piece], bounds[piece + 1]
        if ids[piece] != TEXT:
            out[at] = ids[piece]
            at, start = at + 1, end
        while start < end:
            count = next_words(data, start, end, scanner, scratch)
            gone = _look_up(words, start, count, cache, held)
            i = j = int(np.int64(0))  # for a literal 0 Numba would compile _write once more
            while True:
                i, j, at = _write(data, words, start, count, gone, i, j, table, whole, cache, held, out, at)
                if i == count:
                    break
                low, high = start + scratch.starts[i], start + scratch.starts[i + 1]
                known = whole_word(data, low, high, whole)
                if known >= 0:
                    out[at] = known
                    at += 1
                else:
                    at += merge_long(data, low, high, table, out, at)
                i, j = i + 1, j + 1
            start += scratch.starts[count]
        ends[piece] = at


@borrowing
def _look_up(words: np.ndarray, start: int, count: int, cache: WordCache, held: Words) -> int:
    """Look the words of a stretch up; returns how many are not in the short table."""
    starts, missing, far = held.scratch.starts, held.missing, held.far
    gone = find_short(cache.short, words, start, starts, count, held.near, held.found, missing)
    for j in range(gone):
        low, size = start + starts[missing[j]], int(starts[missing[j] + 1] - starts[missing[j]])
        far[j] = -1
        if size <= LONGEST:
            a, b, c, d = four_words(words, low, size)
            far[j] = find_long(cache, long_place(a, b, c, d, size), a, b, c, d, size)
    return gone


@borrowing
def _write(
    data: np.ndarray, words: np.ndarray, start: int, count: int, gone: int, i: int, j: int, table: MergeTable,
    whole: WholeWords, cache: WordCache, held: Words, out: np.ndarray, at: int,
) -> tuple[int, int, int]:  # fmt: skip
    """Write the tokens of the words of a stretch from word ``i`` on, whose missing ones are from ``j`` on.

    Returns:
        ``(i, j, at)``: the first word too long for the tables, or ``count``; its place among the missing ones; and
        where the next token goes.
    """
    starts, missing, found, far = held.scratch.starts, held.missing, held.found, held.far
    changed = j > 0
    while j < gone:
        for k in range(i, missing[j]):
            at += take_short(found[k], out, at)
        i = int(missing[j])
        low, size = start + starts[i], int(starts[i + 1] - starts[i])
        if size > LONGEST:
            return i, j, at
        entry = far[j]
        if changed or entry < 0:  # a word of this stretch may have moved it, or be it
            a, b, c, d = four_words(words, low, size)
            entry = find_long(cache, long_place(a, b, c, d, size), a, b, c, d, size)
        if entry >= 0:
            tokens = take_long(cache, entry, out, at)
        else:
            known = whole_word(data, low, low + size, whole)
            if known >= 0:
                out[at] = known
                tokens = 1
            else:
                tokens = merge_short(data, low, low + size, table, held.places, out, at)
            a, b, c, d = four_words(words, low, size)
            changed |= put_long(cache, long_place(a, b, c, d, size), a, b, c, d, size, out, at, tokens)
        if size <= 8:
            put_short(cache.short, held.near[i], four_words(words, low, size)[0], size, out, at, tokens)
        at += tokens
        i, j = i + 1, j + 1
    for k in range(i, count):
        at += take_short(found[k], out, at)
    return count, gone, at
