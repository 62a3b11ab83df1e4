"""Texts to tokens in one pass: find the words, look each up, merge those that are new."""

from __future__ import annotations

import numba
import numpy as np

from headrace.tokens.merge_table import MergeTable
from headrace.tokens.merging import SHORT, merge_long, merge_short
from headrace.tokens.whole_words import WholeWords, whole_word
from headrace.tokens.word_cache import (
    LONGEST,
    MOST,
    WordCache,
    long_place,
    put_long,
    put_short,
    short_place,
    take_long,
    take_short,
    word_at,
)  # fmt: skip
from headrace.tokens.words import Scanner, Scratch, next_words


@numba.njit(cache=True, nogil=True)
def _merged(
    data: np.ndarray, start: int, end: int, table: MergeTable, whole: WholeWords,
    symbols: np.ndarray, merges: np.ndarray, out: np.ndarray, at: int,
) -> int:  # fmt: skip
    """Encode one word by its merges; returns how many tokens went to ``out[at:]``."""
    if whole.places.size:
        known = whole_word(data, start, end, whole)
        if known >= 0:
            out[at] = known
            return 1
    if end - start > SHORT:
        return merge_long(data, start, end, table, out, at)
    count = merge_short(data, start, end, table, symbols, merges)
    for i in range(count):
        out[at + i] = symbols[i]
    return count


@numba.njit(cache=True, nogil=True)
def encode_texts(
    data: np.ndarray, words: np.ndarray, bounds: np.ndarray, scanner: Scanner, table: MergeTable, whole: WholeWords,
    cache: WordCache, out: np.ndarray, at: int, ends: np.ndarray,
) -> None:  # fmt: skip
    """Encode texts.

    Args:
        data: uint8: the texts one after another, valid UTF-8, with 8 bytes or more after them.
        words: the same memory as uint64.
        bounds: int64[n + 1], where texts begin and end.
        scanner: how texts are cut into words.
        table: the merges.
        whole: words that are tokens whatever the merges say.
        cache: words already encoded; changes.
        out: uint32, longer by 2 than the texts have bytes beyond ``at``: gets the tokens.
        at: where the first token goes.
        ends: int64[n]: gets the end of each text's tokens.
    """
    symbols, merges = np.empty(SHORT, np.uint32), np.empty(SHORT, np.int64)
    scratch = Scratch(np.empty(scanner.stretch + 2, np.uint8), np.empty(scanner.stretch + 1, np.int32))
    zero = np.uint64(0)
    for text in range(ends.size):
        start, end = bounds[text], bounds[text + 1]
        while start < end:
            count = next_words(data, start, end, scanner, scratch)
            for i in range(count):
                low, high = start + scratch.starts[i], start + scratch.starts[i + 1]
                size = high - low
                if size > LONGEST:
                    at += _merged(data, low, high, table, whole, symbols, merges, out, at)
                    continue
                a, b, c, d = word_at(words, low, size), zero, zero, zero
                near = short_place(a, size)
                held = take_short(cache.short, near, a, size, out, at) if size <= 8 else 0
                if held:
                    at += held
                    continue
                if size > 8:
                    b = word_at(words, low + 8, size - 8)
                if size > 16:
                    c = word_at(words, low + 16, size - 16)
                if size > 24:
                    d = word_at(words, low + 24, size - 24)
                place = long_place(a, b, c, d, size)
                held = take_long(cache, place, a, b, c, d, size, out, at)
                if held == 0:
                    held = _merged(data, low, high, table, whole, symbols, merges, out, at)
                    if held <= MOST:
                        put_long(cache, place, a, b, c, d, size, out, at, held)
                if size <= 8 and held <= 2:
                    put_short(cache.short, near, a, size, out, at, held)
                at += held
            start += scratch.starts[count]
        ends[text] = at
