"""Files after those that they depend on (Guo et al. 2024, DeepSeek-Coder, 2401.14196, algorithm 1).

Of the files of a connected part, the one with the fewest dependencies that have not been placed comes next, so a cycle
is entered where the least is missing. Where the algorithm leaves the choice open, the first file by number is taken;
parts follow one another by their first files.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence


def dependencies_first(needs: Sequence[Sequence[int]]) -> list[int]:
    """The order of files.

    Time is O((n + e) log n).

    Args:
        needs: of each file, the files that it depends on; itself and repeats are passed over.

    Returns:
        The numbers of all files in order.
    """
    n = len(needs)
    users: list[list[int]] = [[] for _ in range(n)]
    missing = [0] * n
    part = list(range(n))

    def root(i: int) -> int:
        while part[i] != i:
            part[i] = part[part[i]]
            i = part[i]
        return i

    for i, mine in enumerate(needs):
        for need in set(mine) - {i}:
            users[need].append(i)
            missing[i] += 1
            a, b = root(i), root(need)
            part[max(a, b)] = min(a, b)
    # A part's number is its first file, since roots only become smaller.
    waiting = [(root(i), missing[i], i) for i in range(n)]
    heapq.heapify(waiting)
    placed = [False] * n
    order = []
    while waiting:
        _, least, i = heapq.heappop(waiting)
        if placed[i] or least != missing[i]:
            continue
        placed[i] = True
        order.append(i)
        for user in users[i]:
            if not placed[user]:
                missing[user] -= 1
                heapq.heappush(waiting, (root(user), missing[user], user))
    return order
