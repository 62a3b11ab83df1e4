"""Words that are tokens regardless of the merges (``ignore_merges`` of Llama 3's tokenizer): a lookup by bytes.

For most words that are tokens, the merges produce that token anyway, so only the others are stored.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.flow.kernels import borrowing, kernel
from headrace.tokens.merge_table import MergeTable
from headrace.tokens.merging import merge_window

# 64-bit FNV-1a (Fowler, Noll and Vo).
_OFFSET, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)

_MANY = 63  # bits of a 64-bit word, minus the one for longer tokens


class WholeWords(NamedTuple):
    """Tokens by their bytes, with open addressing.

    Attributes:
        places: int32[power of two]: a token's index, or -1.
        ids: int32[n].
        starts: int64[n + 1]; token i has the bytes ``text[starts[i]:starts[i + 1]]``.
        text: uint8.
        sizes: bit s is set if some token has s bytes, bit 63 if some token has 63 or more.
    """

    places: np.ndarray
    ids: np.ndarray
    starts: np.ndarray
    text: np.ndarray
    sizes: np.uint64


@borrowing
def _hash(data: np.ndarray, start: int, end: int) -> np.uint64:
    value = _OFFSET
    for i in range(start, end):
        value = (value ^ np.uint64(data[i])) * _PRIME
    return value ^ (value >> np.uint64(32))


@borrowing
def _fill(places: np.ndarray, starts: np.ndarray, text: np.ndarray) -> None:
    mask = places.size - 1
    for i in range(starts.size - 1):
        place = np.int64(_hash(text, starts[i], starts[i + 1]) & np.uint64(mask))
        while places[place] >= 0:
            place = (place + 1) & mask
        places[place] = i


@borrowing
def whole_word(data: np.ndarray, start: int, end: int, table: WholeWords) -> int:
    """The token equal to ``data[start:end]``, or -1."""
    size = end - start
    if not (table.sizes >> np.uint64(min(size, _MANY))) & np.uint64(1):
        return -1
    mask = table.places.size - 1
    place = np.int64(_hash(data, start, end) & np.uint64(mask))
    while table.places[place] >= 0:
        found = table.places[place]
        begin = table.starts[found]
        if table.starts[found + 1] - begin == size:
            same = 0
            while same < size and table.text[begin + same] == data[start + same]:
                same += 1
            if same == size:
                return int(table.ids[found])
        place = (place + 1) & mask
    return -1


def whole_words(tokens: dict[bytes, int], table: MergeTable) -> WholeWords:
    """Build the lookup of tokens (bytes -> id), without those that the merges produce anyway."""
    every, starts, ids = _joined(tokens)
    reached = np.empty(len(tokens), dtype=bool)
    _reached(every, starts, ids, table, reached)
    kept = {piece: index for (piece, index), made in zip(tokens.items(), reached, strict=True) if not made}
    text, starts, ids = _joined(kept)
    places = np.full(1 << (2 * len(kept)).bit_length(), -1, dtype=np.int32)
    _fill(places, starts, text)
    sizes = 0
    for piece in kept:
        sizes |= 1 << min(len(piece), _MANY)
    return WholeWords(places, ids, starts, text, np.uint64(sizes))


def _joined(tokens: dict[bytes, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    starts = np.zeros(len(tokens) + 1, dtype=np.int64)
    np.cumsum([len(token) for token in tokens], out=starts[1:])
    text = np.frombuffer(bytearray(b"".join(tokens)), dtype=np.uint8)
    return text, starts, np.array([*tokens.values()], dtype=np.int32)


@kernel
def _reached(text: np.ndarray, starts: np.ndarray, ids: np.ndarray, table: MergeTable, out: np.ndarray) -> None:
    """Whether merging each token's bytes produces the token."""
    for i in range(ids.size):
        made = np.empty(starts[i + 1] - starts[i], np.uint32)
        out[i] = merge_window(text, starts[i], starts[i + 1], table, made, int(np.int64(0))) == 1 and made[0] == ids[i]
