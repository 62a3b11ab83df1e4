"""Star edges of a partition without sorting it: a hash table holds the first record of each key.

Records come in ascending order of row, so the first of a key has its smallest row, and the edges come in ascending
order of the larger row. Of all records
only those come that may have a key in common with another (:mod:`headrace.select.duplicates.repeats`), so the table is
small.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

_MIXER = np.uint64(0xD6E8FEB86659FD93)


class Stars:
    """Gives the edges from each record to the first of the same key.

    Args:
        records: how many will come at most.
        dtype: theirs: one or two keys of 64 bits, and ``row``.
    """

    def __init__(self, records: int, dtype: np.dtype) -> None:
        self._dtype = dtype
        self._key = 2 * (len(dtype.names or ()) - 1)
        # Memory that is not written to is not taken: few keys take little, however many records.
        self._slots = np.zeros(_slots(records), dtype=np.int32)
        self._firsts = np.empty((records, dtype.itemsize // 4), dtype=np.uint32)
        self._count = 0

    @staticmethod
    def bytes_for(records: int, dtype: np.dtype) -> int:
        """What so many records take at most."""
        return records * dtype.itemsize + 4 * _slots(records)

    def edges(self, records: npt.NDArray[np.void]) -> npt.NDArray[np.unsignedinteger]:
        """The edges (smallest row, row) of further records, unsigned[n, 2] of their row's type."""
        words = records.view(np.uint32).reshape(len(records), records.dtype.itemsize // 4)
        out = np.empty((len(records), 2), dtype=self._dtype["row"])
        found, self._count = _stars(words, self._key, self._slots, self._firsts, self._count, out)
        return out[:found]


def _slots(records: int) -> int:
    return 1 << max(4, (2 * records).bit_length())


@numba.njit(cache=True, nogil=True)
def _stars(
    words: npt.NDArray[np.uint32],
    key: int,
    slots: npt.NDArray[np.int32],
    firsts: npt.NDArray[np.uint32],
    count: int,
    edges: npt.NDArray[np.unsignedinteger],
) -> tuple[int, int]:
    """Write edges.

    Args:
        words: uint32[n, w]; the first ``key`` words are the key, the others the row, the lower half first.
        slots: a power of two of positions in ``firsts`` plus one, 0 where there is none. Updated.
        firsts: the first record of each key so far. Updated.
        count: how many there are.
        edges: unsigned[n, 2], filled.

    Returns:
        The number of edges, and of first records now.
    """
    mask = np.uint64(len(slots) - 1)
    width = words.shape[1]
    found = 0
    for i in range(len(words)):
        at = (np.uint64(words[i, 1]) << np.uint64(32)) | np.uint64(words[i, 0])
        at = (at ^ (at >> np.uint64(29))) * _MIXER
        at = (at >> np.uint64(33)) & mask
        while True:
            held = slots[at] - 1
            if held < 0:
                slots[at] = count + 1
                for w in range(width):
                    firsts[count, w] = words[i, w]
                count += 1
                break
            same = True
            for w in range(key):
                same &= firsts[held, w] == words[i, w]
            if same:
                row, member = np.uint64(firsts[held, key]), np.uint64(words[i, key])
                if width - key == 2:
                    row |= np.uint64(firsts[held, key + 1]) << np.uint64(32)
                    member |= np.uint64(words[i, key + 1]) << np.uint64(32)
                edges[found, 0], edges[found, 1] = row, member
                found += 1
                break
            at = (at + np.uint64(1)) & mask
    return found, count
