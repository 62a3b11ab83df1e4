"""Connected components of the duplicate pairs: union-find over one array.

A component's label is its smallest row, so it depends only on the pairs, not their order.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace.flow.kernels import kernel


def row_dtype(rows: int) -> np.dtype:
    """The narrowest unsigned type for row numbers below ``rows``: 4 bytes up to 4.3 billion documents."""
    return np.dtype("<u4") if rows <= 1 << 32 else np.dtype("<u8")


@kernel
def union(parent: npt.NDArray[np.unsignedinteger], pairs: npt.NDArray[np.unsignedinteger]) -> int:
    """Join the two rows of each pair.

    Union by smaller root with path halving (Tarjan and van Leeuwen 1984): a parent is never greater than its child.

    Args:
        parent: unsigned[rows], each row's parent; initially the row itself.
        pairs: unsigned[n, 2].

    Returns:
        The number of pairs that joined two components.
    """
    joined = 0
    for i in range(len(pairs)):
        a, b = np.int64(pairs[i, 0]), np.int64(pairs[i, 1])
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = np.int64(parent[a])
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = np.int64(parent[b])
        if a < b:
            parent[b] = a
            joined += 1
        elif b < a:
            parent[a] = b
            joined += 1
    return joined


@kernel
def flatten(parent: npt.NDArray[np.unsignedinteger], sizes: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.int64]:
    """Make every parent its component's smallest row, in one ascending pass, and count members.

    Args:
        parent: unsigned[rows], after all unions.
        sizes: unsigned[rows] of zeros; receives each component's size at its smallest row.

    Returns:
        int64[3]: the number of components with several members, the total of their members, and the size of the
        largest.
    """
    counts = np.zeros(3, np.int64)
    for row in range(len(parent)):
        parent[row] = parent[parent[row]]
        sizes[parent[row]] += 1
    for row in range(len(parent)):
        size = np.int64(sizes[row])
        if size > 1:
            counts[0] += 1
            counts[1] += size
            counts[2] = max(counts[2], size)
    return counts


@kernel
def spread_sizes(parent: npt.NDArray[np.unsignedinteger], sizes: npt.NDArray[np.unsignedinteger]) -> None:
    """Set each row's size to that of its component, in place, after :func:`flatten`.

    A component's smallest row is its own parent and keeps its size, so rows can be processed in any order.
    """
    for row in range(len(parent)):
        sizes[row] = sizes[parent[row]]


@kernel
def star_edges(
    high: npt.NDArray[np.uint64],
    low: npt.NDArray[np.uint64],
    rows: npt.NDArray[np.uint64],
    own: np.uint64,
    state: npt.NDArray[np.uint64],
    edges: npt.NDArray[np.unsignedinteger],
) -> int:
    """Edges from each member of a bucket to its smallest row: n - 1 edges for a bucket of n, rather than n * (n - 1) /
    2.

    Records come in ascending order of (high, low, row), in as many chunks as memory requires. Buckets with only
    reference documents get no edges: nobody asks about those.

    Args:
        high, low: uint64[n], the two halves of a bucket's key.
        rows: uint64[n].
        own: rows below this are the corpus, the others reference documents.
        state: uint64[4], the bucket that is open at the start of a chunk: high, low, smallest row, and 1 if there is
            one. Updated.
        edges: unsigned[n, 2]; receives (smallest row, member).

    Returns:
        The number of edges.
    """
    count = 0
    for i in range(len(rows)):
        if state[3] == 1 and high[i] == state[0] and low[i] == state[1]:
            if rows[i] != state[2] and state[2] < own:
                edges[count, 0] = state[2]
                edges[count, 1] = rows[i]
                count += 1
        else:
            state[0], state[1], state[2], state[3] = high[i], low[i], rows[i], 1
    return count
