"""Words that are tokens whatever the merges say (``ignore_merges`` of Llama 3's tokenizer): a look-up by bytes."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

# FNV-1a with 64 bits (Fowler, Noll and Vo).
_OFFSET, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)


class WholeWords(NamedTuple):
    """Tokens by their bytes, open addressing.

    Attributes:
        places: int32[power of two]: index of a token or -1; of length 0 if there are none to look up.
        ids: int32[n].
        starts: int64[n + 1]; token i has the bytes ``text[starts[i]:starts[i + 1]]``.
        text: uint8.
    """

    places: np.ndarray
    ids: np.ndarray
    starts: np.ndarray
    text: np.ndarray


@numba.njit(cache=True, nogil=True)
def _hash(data: np.ndarray, start: int, end: int) -> np.uint64:
    value = _OFFSET
    for i in range(start, end):
        value = (value ^ np.uint64(data[i])) * _PRIME
    return value ^ (value >> np.uint64(32))


@numba.njit(cache=True, nogil=True)
def _fill(places: np.ndarray, starts: np.ndarray, text: np.ndarray) -> None:
    mask = places.size - 1
    for i in range(starts.size - 1):
        place = np.int64(_hash(text, starts[i], starts[i + 1]) & np.uint64(mask))
        while places[place] >= 0:
            place = (place + 1) & mask
        places[place] = i


@numba.njit(cache=True, nogil=True)
def whole_word(data: np.ndarray, start: int, end: int, table: WholeWords) -> int:
    """The token that ``data[start:end]`` is, or -1."""
    mask = table.places.size - 1
    place = np.int64(_hash(data, start, end) & np.uint64(mask))
    size = end - start
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


def whole_words(tokens: dict[bytes, int]) -> WholeWords:
    """The look-up of tokens: bytes -> id. Without any, the look-up is left out."""
    size = 1 << (2 * len(tokens) - 1).bit_length() if tokens else 0
    starts = np.zeros(len(tokens) + 1, dtype=np.int64)
    np.cumsum([len(token) for token in tokens], out=starts[1:])
    text = np.frombuffer(b"".join(tokens), dtype=np.uint8)
    table = WholeWords(np.full(size, -1, dtype=np.int32), np.array([*tokens.values()], dtype=np.int32), starts, text)
    if tokens:
        _fill(table.places, starts, text)
    return table
