"""The parts of a long text that a model with a window of some tokens reads: its top, its middle and its bottom.

Arctic-SnowCoder (2409.02326) averages the scores of three parts of each file, since files are longer than the 512
tokens of its encoder; FineWeb-Edu (2406.17557) reads the top alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from headrace.recipe.quality import PLACES, Place

# Bytes that are tokenized for each token of a window: text and code have 3 to 6 a token. Of longer texts only the parts
# around the windows are tokenized, so that a text of 100 MB costs no more than one of 50 kB.
_BYTES = 32

Ids = npt.NDArray[np.int32]
Encode = Callable[[list[str]], list[Ids]]


def windows(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], encode: Encode, length: int, places: Sequence[Place]
) -> tuple[list[Ids], npt.NDArray[np.int64]]:
    """Cut texts into windows of tokens.

    A text of at most ``length`` tokens is one window. Of a longer one, those at ``places`` are taken: its first
    ``length`` tokens, those in the middle, and its last.

    Args:
        data: uint8[bytes], UTF-8.
        offsets: int64[texts + 1], where each text begins and ends.
        encode: tokenizes texts, int32[tokens] each, without special tokens.
        length: tokens of a window.
        places: which windows of a long text.

    Returns:
        The windows, int32[tokens] each, in the order of texts and places, none of a text without tokens; and
        int64[windows], the text that each is of.
    """
    most = _BYTES * length
    found: list[Ids] = []
    owners: list[int] = []
    for text in range(len(offsets) - 1):
        start, end = int(offsets[text]), int(offsets[text + 1])
        if end - start <= len(PLACES) * most:
            (ids,) = encode([_decoded(data, start, end)])
            some = [ids] if len(ids) <= length else [_part(ids, length, place) for place in places]
        else:
            parts = [_around(start, end, most, place) for place in places]
            told = encode([_decoded(data, *part) for part in parts])
            some = [_part(ids, length, place) for ids, place in zip(told, places, strict=True)]
        some = [ids for ids in some if len(ids)]
        found += some
        owners += [text] * len(some)
    return found, np.array(owners, dtype=np.int64)


def batches(lengths: Sequence[int], tokens: int) -> Iterator[npt.NDArray[np.int64]]:
    """The windows that are computed together: of about the same length, the longest first.

    Args:
        lengths: tokens of each window.
        tokens: tokens of a batch at most, padding included.

    Yields:
        int64[k], numbers of windows.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    start = 0
    while start < len(order):
        count = max(1, tokens // max(1, lengths[int(order[start])]))
        yield order[start : start + count]
        start += count


def averaged(scores: npt.NDArray[np.float32], owners: npt.NDArray[np.int64], texts: int) -> npt.NDArray[np.float32]:
    """The mean score of each text's windows, float32[texts]; nan for a text without any."""
    counts = np.bincount(owners, minlength=texts)
    sums = np.bincount(owners, weights=scores.astype(np.float64), minlength=texts)
    with np.errstate(invalid="ignore"):
        return (sums / counts).astype(np.float32)


def _part(ids: Ids, length: int, place: Place) -> Ids:
    start = _start(len(ids), length, place)
    return ids[start : start + length]


def _start(size: int, length: int, place: Place) -> int:
    return {"top": 0, "middle": max(0, (size - length) // 2), "bottom": max(0, size - length)}[place]


def _around(start: int, end: int, most: int, place: Place) -> tuple[int, int]:
    first = start + _start(end - start, most, place)
    return first, first + most


def _decoded(data: npt.NDArray[np.uint8], start: int, end: int) -> str:
    """A stretch of UTF-8, without the parts of characters at its ends."""
    while start < end and data[start] & 0xC0 == 0x80:
        start += 1
    return data[start:end].tobytes().decode("utf-8", "ignore")
