"""The exact Jaccard similarity of two documents' shingle sets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace.flow.kernels import kernel
from headrace.select.clean import clean_text
from headrace.select.duplicates.shingles import block_buffers, next_block

# Shingles per pass over a pair: a table with twice as many slots takes 36 MB. Longer pairs take several passes, each
# over the shingles whose hashes fall in its share.
PASS_SHINGLES = 1 << 21

_IN_A = np.uint8(1)
_IN_BOTH = np.uint8(2)
_IN_B = np.uint8(3)


def shingle_set(text: str, ngram: int, unit: str) -> set[str]:
    """The shingles of one text as strings: what the kernels hash.

    Args:
        text: any text; it will be cleaned.
        ngram: units in a shingle.
        unit: "characters" or "words".
    """
    cleaned = clean_text(text)
    if not cleaned:
        return set()
    if unit == "words":
        words = cleaned.split(" ")
        return {" ".join(words[i : i + ngram]) for i in range(max(1, len(words) - ngram + 1))}
    return {cleaned[i : i + ngram] for i in range(max(1, len(cleaned) - ngram + 1))}


def text_jaccard(a: str, b: str, ngram: int, unit: str) -> float:
    """The Jaccard similarity of two texts in plain Python; two texts without shingles have 0."""
    x, y = shingle_set(a, ngram, unit), shingle_set(b, ngram, unit)
    return len(x & y) / len(x | y) if x or y else 0.0


def pair_jaccard(
    a: npt.NDArray[np.uint32], b: npt.NDArray[np.uint32], ngram: int, words: bool, pass_shingles: int = PASS_SHINGLES
) -> float:
    """The Jaccard similarity of two cleaned documents, from their 64-bit shingle hashes.

    Equals :func:`text_jaccard` unless two of the pair's shingles share a hash (for documents of a million shingles, one
    in about 10**7 pairs).

    Args:
        a, b: uint32[...] code points, from :func:`headrace.select.clean.clean`.
        ngram: units in a shingle.
        words: whether a unit is a word rather than a code point.
        pass_shingles: shingles per pass; bounds memory and does not affect the result.
    """
    both = len(a) + len(b)
    passes = max(1, -(-both // pass_shingles))
    slots = 1 << max(4, (2 * min(both, 2 * pass_shingles)).bit_length())
    shared, union = -1, -1
    while union < 0:
        keys, marks = np.empty(slots, dtype=np.uint64), np.empty(slots, dtype=np.uint8)
        shared, union = _count(a, b, ngram, words, passes, keys, marks)
        slots *= 2
    return shared / union if union else 0.0


@kernel
def _count(
    a: npt.NDArray[np.uint32],
    b: npt.NDArray[np.uint32],
    ngram: int,
    words: bool,
    passes: int,
    keys: npt.NDArray[np.uint64],
    marks: npt.NDArray[np.uint8],
) -> tuple[int, int]:
    """The sizes of the intersection and union of two shingle sets, or (-1, -1) if the table is too small."""
    buffers = block_buffers(ngram)
    hashes = buffers[-1]
    mask = np.int64(len(keys) - 1)
    shared, union = 0, 0
    for turn in range(passes):
        marks[:] = 0
        held = 0
        for side in range(2):
            points = a if side == 0 else b
            mine = _IN_A if side == 0 else _IN_B
            count, at, have = next_block(points, 0, len(points), ngram, words, buffers, 0)
            while count:
                for j in range(count):
                    x = hashes[j]
                    if passes > 1 and np.int64(((x >> np.uint64(32)) * np.uint64(passes)) >> np.uint64(32)) != turn:
                        continue
                    slot = np.int64(x) & mask
                    while marks[slot] != 0 and keys[slot] != x:
                        slot = (slot + 1) & mask
                    if marks[slot] == 0:
                        if held == mask:
                            return -1, -1
                        keys[slot], marks[slot] = x, mine
                        held += 1
                    elif marks[slot] == _IN_A and side == 1:
                        marks[slot] = _IN_BOTH
                        shared += 1
                count, at, have = next_block(points, at, len(points), ngram, words, buffers, have)
        union += held
    return shared, union
