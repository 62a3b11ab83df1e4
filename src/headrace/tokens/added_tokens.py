"""Added tokens that are not special: a text is cut where one's spelling occurs, and that piece becomes the token.

As in the library, spellings are found left to right, the longest at each position, continuing after it (Aho-Corasick,
leftmost-longest). Special tokens are searched for together with the others; their matches stay text, but nothing that
overlaps them matches. Tokens that are not ``normalized`` are cut out of the original text, the others out of each
normalized piece.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from headrace.flow.kernels import borrowing
from headrace.tokens.pieces import TEXT, Pieces

NOT_CUT = -2
"""The value of a spelling that matches but stays text."""


class Spellings(NamedTuple):
    """Spellings as a trie of bytes.

    Attributes:
        pairs: uint8[65536], 0 or 1: whether a spelling starts with bytes ``a << 8 | b``, or is the single byte a.
        children: int32[nodes, 256]: the node after each byte; 0, the root, if there is none.
        values: int32[nodes]: the token whose spelling ends at a node, ``NOT_CUT``, or ``TEXT`` if none ends there.
        shortest: length of the shortest spelling in bytes.
    """

    pairs: np.ndarray
    children: np.ndarray
    values: np.ndarray
    shortest: int


def spellings_of(tokens: Mapping[bytes, int]) -> Spellings:
    """The trie of spellings.

    Args:
        tokens: nonempty spelling -> id or ``NOT_CUT``.
    """
    pairs = np.zeros((256, 256), dtype=np.uint8)
    children: list[dict[int, int]] = [{}]
    values = [TEXT]
    for spelling, value in tokens.items():
        pairs[spelling[0], spelling[1] if len(spelling) > 1 else slice(None)] = 1
        node = 0
        for byte in spelling:
            node = children[node].setdefault(byte, len(values))
            if node == len(values):
                children.append({})
                values.append(TEXT)
        values[node] = value
    table = np.zeros((len(values), 256), dtype=np.int32)
    for node, after in enumerate(children):
        table[node, [*after]] = [*after.values()]
    return Spellings(pairs.reshape(-1), table, np.array(values, dtype=np.int32), min(map(len, tokens)))


def cut(pieces: Pieces, spellings: Spellings) -> Pieces:
    """Cut pieces of text at the spellings they contain; nothing is copied."""
    # Each spelling adds at most two pieces. Memory that is never written to costs nothing.
    size = int(pieces.bounds[-1] - pieces.bounds[0])
    room = len(pieces.ids) + 2 * (size // spellings.shortest)
    bounds, ids = np.empty(room + 1, dtype=np.int64), np.empty(room, dtype=np.int32)
    firsts = np.empty_like(pieces.firsts)
    count = _cut(*pieces, spellings, bounds, ids, firsts)
    return Pieces(pieces.data, bounds[: count + 1], ids[:count], firsts)


@borrowing
def _candidate(data: np.ndarray, start: int, end: int, pairs: np.ndarray) -> int:
    """The first byte from ``start`` on where a spelling may start, judged by the two bytes there, or one at the end."""
    i, last = np.uint64(start), np.uint64(end - 1)
    before = np.uint64(data[i])
    while i < last:
        after = np.uint64(data[i + np.uint64(1)])
        if pairs[before << np.uint64(8) | after]:
            break
        before = after
        i += np.uint64(1)
    return int(np.int64(i))


@borrowing
def _longest(data: np.ndarray, start: int, end: int, spellings: Spellings) -> tuple[int, int]:
    """The value of the longest spelling at a byte (``TEXT`` if there is none), and where it ends."""
    value, stop, node = TEXT, start, np.int64(0)
    for i in range(start, end):
        node = np.int64(spellings.children[node, data[i]])
        if node == 0:
            break
        if spellings.values[node] != TEXT:
            value, stop = int(np.int64(spellings.values[node])), i + 1
    return value, stop


@borrowing
def _cut(
    data: np.ndarray, bounds: np.ndarray, ids: np.ndarray, firsts: np.ndarray, spellings: Spellings,
    new_bounds: np.ndarray, new_ids: np.ndarray, new_firsts: np.ndarray,
) -> int:  # fmt: skip
    """Fill the new bounds, ids and firsts; returns the number of pieces."""
    count, text = 0, 0
    for piece in range(ids.size):
        while firsts[text] <= piece:
            new_firsts[text] = count
            text += 1
        begin, end = bounds[piece], bounds[piece + 1]
        i = begin
        while ids[piece] == TEXT and i < end:
            i = _candidate(data, i, end, spellings.pairs)
            value, stop = _longest(data, i, end, spellings)
            if value >= 0:
                if begin < i:
                    new_bounds[count], new_ids[count] = begin, TEXT
                    count += 1
                new_bounds[count], new_ids[count] = i, value
                count += 1
                begin = stop
            i = max(stop, i + 1)
        if begin < end:
            new_bounds[count], new_ids[count] = begin, ids[piece]
            count += 1
    for rest in range(text, firsts.size):
        new_firsts[rest] = count
    new_bounds[count] = bounds[-1]
    return count
