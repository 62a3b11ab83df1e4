"""NFC normalization: a table finds text that it cannot change, the library normalizes the rest.

The quick check of Unicode Standard Annex 15 shows for nearly all text that it is already normalized, using the
quick-check property and combining class of each character. Elsewhere, the range from the last unchangeable character
before to the next one after is normalized by the library itself, whose tables are from an old version of Unicode. It
leaves characters newer than its tables alone; here those count according to Python's ``unicodedata``, and characters
newer than that count as changeable, so at worst a range too many is passed on.
"""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np
from tokenizers.normalizers import NFC

from headrace.flow.kernels import borrowing
from headrace.tokens.pieces import TEXT, Pieces
from headrace.tokens.utf8 import code_point

_CHANGEABLE = 255  # combining classes end at 240
_FIRST_MARK = 0xCC  # the first byte of U+0300; before it nothing changes, nor does anything combine with what precedes
_BLOCK = 64
# Ranges closer than this many bytes are passed on as one: a call takes 1 us, in which the library normalizes about 30
# bytes.
_NEAR = 32
# Hangul vowels and final consonants combine with what precedes, which their decompositions do not show.
_JAMO = (range(0x1161, 0x1176), range(0x11A8, 0x11C3))


@cache
def combining_classes() -> np.ndarray:
    """uint8[0x110000], read-only: the combining class of each code point; 255 if the quick check is not a yes."""
    out = np.full(0x110000, _CHANGEABLE, dtype=np.uint8)
    # Nothing is assigned between these yet, and private use comes last.
    for low, high in ((0, 0xD800), (0xE000, 0x34000), (0xE0000, 0xE1000)):
        chars = [chr(point) for point in range(low, high)]
        assigned = np.array([unicodedata.category(char) != "Cn" for char in chars])
        classes = np.fromiter(map(unicodedata.combining, chars), dtype=np.uint8, count=len(chars))
        out[low:high] = np.where(assigned, classes, _CHANGEABLE)
        for char in chars:
            spelled = unicodedata.decomposition(char)
            if spelled and spelled[0] != "<":
                if unicodedata.normalize("NFC", char) != char:
                    out[ord(char)] = _CHANGEABLE
                for point in spelled.split()[1:]:
                    out[int(point, 16)] = _CHANGEABLE
    for jamo in _JAMO:
        out[jamo.start : jamo.stop] = _CHANGEABLE
    out[0xF0000:] = 0
    out.flags.writeable = False
    return out


def normalised(pieces: Pieces) -> Pieces:
    """Pieces with NFC text, each normalized separately; the same object if nothing changes."""
    data, bounds, ids, firsts = pieces
    table = combining_classes()
    count = _changeable(data, bounds, ids, table, np.empty((0, 2), dtype=np.int64))
    if not count:
        return pieces
    stretches = np.empty((count, 2), dtype=np.int64)
    _changeable(data, bounds, ids, table, stretches)
    nfc, raw = NFC(), memoryview(data)  # type: ignore[arg-type]
    made: list[bytes | memoryview] = []
    ends, grown = [], []
    at = int(bounds[0])
    for start, end in stretches.tolist():
        before = bytes(raw[start:end])
        after = nfc.normalize_str(before.decode()).encode()
        if after != before:
            made += [raw[at:start], after]
            at = end
            ends.append(end)
            grown.append(len(after) - len(before))
    made.append(raw[at : int(bounds[-1])])
    shifts = np.concatenate([[0], np.cumsum(grown, dtype=np.int64)])
    moved = bounds - bounds[0] + shifts[np.searchsorted(np.array(ends, dtype=np.int64), bounds, side="right")]
    return Pieces(np.frombuffer(b"".join(made), dtype=np.uint8), moved, ids, firsts)


@borrowing
def _changeable(data: np.ndarray, bounds: np.ndarray, ids: np.ndarray, table: np.ndarray, out: np.ndarray) -> int:
    """Find the ranges of text that normalization may change.

    Args:
        data: uint8, valid UTF-8.
        bounds: int64[n + 1], see :class:`~headrace.tokens.pieces.Pieces`.
        ids: int32[n].
        table: from :func:`combining_classes`.
        out: int64[m, 2]: receives the start and end of the first m ranges.

    Returns:
        The number of ranges.
    """
    count = 0
    for piece in range(ids.size):
        if ids[piece] != TEXT:
            continue
        i, end = bounds[piece], bounds[piece + 1]
        firm, last, begin = i, np.int64(0), np.int64(-1)  # last character of class 0; class before; current range
        first, until = i, i - _NEAR  # the previous range
        while i < end:
            stop = min(i + _BLOCK, end)
            top = np.uint8(0)
            for k in range(np.uint64(i), np.uint64(stop)):
                top = max(top, data[k])
            if top < _FIRST_MARK and begin < 0:
                # A two-byte character may extend beyond the block.
                firm = stop - 1 if data[stop - 1] < 0x80 or data[stop - 1] >= 0xC0 else stop - 2
                i = stop + (1 if data[stop - 1] >= 0xC0 else 0)
                last = np.int64(0)
                continue
            while i < stop:
                point, size = code_point(data, i)
                kind = np.int64(table[point])
                if kind == 0:
                    if begin >= 0:
                        if count < out.shape[0]:
                            out[count, 0], out[count, 1] = begin, i
                        count += 1
                        first, until, begin = begin, i, np.int64(-1)
                    firm = i
                elif begin < 0 and (kind == _CHANGEABLE or kind < last):
                    begin = firm
                    if firm - until < _NEAR:
                        begin = first
                        count -= 1
                last = kind
                i += size
        if begin >= 0:
            if count < out.shape[0]:
                out[count, 0], out[count, 1] = begin, end
            count += 1
    return count
