"""Where documents in order reach a total, though each shard was ordered by itself.

Each shard lists its documents in order with running totals; the point where all shards together reach a total is found
by bisection over the keys, so nothing grows with the number of documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

LAST = (1 << 64) - 1

Table = np.ndarray
"""One shard's documents: uint64[3, n], ascending keys, their rows (ascending among equal keys), running totals."""


def reached(tables: Sequence[Table], total: int) -> tuple[int, int]:
    """The document at which shards, each taken in order, together reach a total.

    Args:
        tables: one for each shard, with rows ascending from one shard to the next.
        total: from 1 to the sum of all.

    Returns:
        Its key and row.
    """
    low, high = 0, LAST  # the smallest key that reaches the total
    while low < high:
        middle = (low + high) // 2
        if sum(_through(table, middle, "right") for table in tables) >= total:
            high = middle
        else:
            low = middle + 1
    left = total - sum(_through(table, low, "left") for table in tables)
    for table in tables:
        before = _through(table, low, "left")
        here = _through(table, low, "right") - before
        if here >= left:
            return low, int(table[1, np.searchsorted(table[2], np.uint64(before + left))])
        left -= here
    raise AssertionError("the tables do not come to the total")


def _through(table: Table, key: int, side: Any) -> int:
    """The total of the documents with keys below another, or up to it."""
    n = int(np.searchsorted(table[0], np.uint64(key), side=side))
    return int(table[2, n - 1]) if n else 0
