"""The units of a text that a pooled encoder embeds: words, signs and the beginnings of lines, by hash."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace.flow.kernels import kernel

BUCKETS = 1 << 16  # of units; the first is padding's

_BASIS, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)  # FNV-1a, 64 bits
_WORD, _SIGN, _SPACE, _LINE = 0, 1, 2, 3
_CLASS = np.full(256, _SIGN, dtype=np.uint8)
_CLASS[[*range(48, 58), *range(65, 91), *range(97, 123), 95, *range(128, 256)]] = _WORD
_CLASS[[*range(14), 32]] = _SPACE
_CLASS[10] = _LINE


def units(text: str) -> npt.NDArray[np.int32]:
    """The buckets of a text's units, int32[n], each from 1 to :data:`BUCKETS` - 1.

    A unit is a run of letters, digits and underscores, any other sign, or a line break with the spaces that the next
    line begins with.
    """
    data = np.frombuffer(text.strip().encode(), dtype=np.uint8)
    out = np.empty(len(data), dtype=np.int32)
    return out[: _units(data, _CLASS, out)].copy()


@kernel
def _units(data: npt.NDArray[np.uint8], classes: npt.NDArray[np.uint8], out: npt.NDArray[np.int32]) -> int:
    at, size, found = 0, len(data), 0
    while at < size:
        kind, value = classes[data[at]], _BASIS
        if kind == _SPACE:
            at += 1
            continue
        start = at
        at += 1
        if kind == _WORD:
            while at < size and classes[data[at]] == _WORD:
                at += 1
        elif kind == _LINE:
            while at < size and classes[data[at]] == _SPACE:
                at += 1
        for k in range(start, at):
            value = (value ^ np.uint64(data[k])) * _PRIME
        out[found] = np.int32(value >> np.uint64(40)) % (BUCKETS - 1) + 1
        found += 1
    return found
