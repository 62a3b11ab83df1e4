"""Connected components on disk: alternating large-star and small-star (Kiveris, Lattanzi, Mirrokni, Rastogi and
Vassilvitskii, "Connected Components in MapReduce and Beyond", SoCC 2014).

Each round sorts the edges twice. Large-star looks at each row with all its neighbors, and points the larger ones at the
smallest; small-star looks at each row with its smaller neighbors, and points them and the row at the smallest. Neither
joins or splits components or adds edges. When a round changes nothing, each component is a star around its smallest
row. A chain needs one round per doubling of its length; what duplicates usually form, overlapping cliques and stars,
takes three or four rounds at any size.

A star with no edges changed in a round is a complete component: any other neighbor of its center or of a member would
have changed an edge. It is set aside, so that a long chain, which needs many rounds, does not drag the others along.

Rows stream by in order, so a row with a hundred million neighbors takes no more memory than one with two. Each round's
edges are in a file, next to a record of what it and the stars should contain, so a task that died resumes in the round
where it died, or starts over if something was damaged since.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from headrace.flow.damage import flaws
from headrace.flow.external_sort import ExternalSort
from headrace.flow.kernels import kernel
from headrace.flow.storage import SealError, read_sealed, write_sealed
from headrace.flow.task import TaskContext

EDGE = np.dtype([("row", "<u8"), ("other", "<u8")])

# Edges read at a time from a round's file.
CHUNK = 1 << 18

Edges = Iterable[npt.NDArray[np.uint64]]
"""Chunks of uint64[n, 2]: pairs of different rows, the smaller first."""

_SAME = np.uint64(1 << 63)  # on an edge's larger row: unchanged in the last round
_LAST_BIT = np.uint64(63)
_ONE = np.uint64(1)
_NO = np.uint64(0)


def contract(ctx: TaskContext, edges: Edges) -> Iterator[npt.NDArray[np.uint64]]:
    """The components of a graph as stars.

    Args:
        ctx: the task; each round is an intermediate file.
        edges: pairs (smaller row, larger row) of rows below 2**62, with repeats. Not read if a round has already been
            done.

    Yields:
        uint64[n, 2] of (component's smallest row, member), once for each member except the smallest.
    """
    done = _last_round(ctx)
    number, changes, latest = done if done is not None else (0, 1, None)
    while changes:
        number += 1
        with (
            ctx.intermediate(f"round-{number:03d}.edges") as out,
            ctx.intermediate(f"stars-{number:03d}.edges") as stars,
            open(out.path, "wb") as f,
            open(stars.path, "wb") as g,
        ):
            changes = _round(ctx, edges if latest is None else _read(latest), f, g)
        written = {entry["name"].rpartition("/")[2][:5]: entry for entry in ctx.files[-2:]}
        write_sealed(_folder(ctx) / f"round-{number:03d}.json", {"changes": changes, **written})
        if latest is not None:
            ctx.discard(latest)
        latest = ctx.scratch(ctx.phase, f"round-{number:03d}.edges")
    assert latest is not None
    for before in range(1, number + 1):
        yield from _read(ctx.scratch(ctx.phase, f"stars-{before:03d}.edges"))
    for chunk in _read(latest):
        yield chunk & ~_SAME


def _round(ctx: TaskContext, edges: Edges, out: BinaryIO, stars: BinaryIO) -> int:
    """One large-star and one small-star; returns how many edges changed."""
    # Two sorts are active at once: one is read while the other is filled.
    by_row, by_larger = (ExternalSort(_folder(ctx), EDGE, ("row", "other"), ctx.memory // 2) for _ in range(2))
    for chunk in edges:
        back = np.stack([chunk[:, 1] & ~_SAME, chunk[:, 0]], axis=1)
        by_row.add(np.concatenate([chunk, back]).view(EDGE).reshape(-1))
    changes = 0
    state = np.zeros(5, dtype=np.uint64)
    for records in by_row.chunks():
        found, whole = np.empty((2, len(records), 2), dtype=np.uint64)
        count, aside, changed = large_star(records.view(np.uint64).reshape(-1, 2), state, found, whole)
        by_larger.add(found[:count].copy().view(EDGE).reshape(-1))
        whole[:aside].tofile(stars)
        changes += changed
        ctx.progress(len(records))
    state[:] = 0
    for records in by_larger.chunks():
        found = np.empty((len(records), 2), dtype=np.uint64)
        count, changed = small_star(records.view(np.uint64).reshape(-1, 2), state, found)
        found[:count].tofile(out)
        changes += changed
    return changes


def _folder(ctx: TaskContext) -> Path:
    return ctx.folder / "scratch" / ctx.phase


def _last_round(ctx: TaskContext) -> tuple[int, int, Path] | None:
    """The last finished round's number, changes and edges; None if its files are damaged."""
    told = sorted(_folder(ctx).glob("round-*.json"))
    try:
        rounds = [read_sealed(path) for path in told]
    except SealError:
        return None
    needed = [*(done["stars"] for done in rounds), *(done["round"] for done in rounds[-1:])]
    if not rounds or flaws((ctx.folder / entry["name"], entry) for entry in needed):
        return None
    return len(rounds), rounds[-1]["changes"], ctx.folder / rounds[-1]["round"]["name"]


def _read(path: Path) -> Iterator[npt.NDArray[np.uint64]]:
    with open(path, "rb") as f:
        while len(edges := np.fromfile(f, dtype=np.uint64, count=2 * CHUNK)):
            yield edges.reshape(-1, 2)


@kernel
def large_star(
    edges: npt.NDArray[np.uint64],
    state: npt.NDArray[np.uint64],
    out: npt.NDArray[np.uint64],
    whole: npt.NDArray[np.uint64],
) -> tuple[int, int, int]:
    """Point each row's larger neighbors at the smallest of them and the row itself.

    Args:
        edges: uint64[n, 2] of (row, neighbor), each edge in both directions, ascending, in as many chunks as memory
            requires. A larger neighbor's highest bit is set if the last round did not change the edge, so that it sorts
            after those with changed edges: if it comes first, the row is the center of a star that is a complete
            component.
        state: uint64[5], zeros before the first chunk: the row that is open at the start of a chunk, the smallest of it
            and its neighbors, the last neighbor, 1 if there is one, and 1 if it is the center of a complete component.
            Updated.
        out: uint64[n, 2]; receives (larger neighbor, 2 * smallest, plus 1 if the edge is unchanged).
        whole: uint64[n, 2]; receives (center, member) of complete components.

    Returns:
        The number of edges written, of edges set aside, and of edges changed.
    """
    count, aside, changes = 0, 0, 0
    for i in range(len(edges)):
        row, other = edges[i, 0], edges[i, 1]
        if state[3] == 0 or row != state[0]:
            state[0], state[1], state[3], state[4] = row, min(row, other), 1, other >> _LAST_BIT
        elif other == state[2]:
            continue
        state[2] = other
        if state[4] == 1:
            whole[aside, 0], whole[aside, 1] = row, other & ~_SAME
            aside += 1
        elif other > row:
            same = _ONE if state[1] == row else _NO
            out[count, 0], out[count, 1] = other & ~_SAME, (state[1] << _ONE) | same
            count += 1
            changes += 1 if state[1] != row else 0
    return count, aside, changes


@kernel
def small_star(
    edges: npt.NDArray[np.uint64], state: npt.NDArray[np.uint64], out: npt.NDArray[np.uint64]
) -> tuple[int, int]:
    """Point each row and its smaller neighbors at the smallest of them.

    Args:
        edges: uint64[n, 2] of (row, 2 * smaller neighbor, plus 1 if large-star left the edge unchanged), ascending, in
            as many chunks as memory requires. If an edge occurs in both forms, the changed one comes first and counts.
        state: as for :func:`large_star`.
        out: uint64[n, 2]; receives (smallest, row or neighbor), with the highest bit set if neither star changed the
            edge.

    Returns:
        The number of edges written, and of edges changed.
    """
    count, changes = 0, 0
    for i in range(len(edges)):
        row, other = edges[i, 0], edges[i, 1] >> _ONE
        if state[3] == 0 or row != state[0]:
            state[0], state[1], state[3] = row, other, 1
            out[count, 0], out[count, 1] = other, row | ((edges[i, 1] & _ONE) << _LAST_BIT)
            count += 1
        elif other != state[2]:
            out[count, 0], out[count, 1] = state[1], other
            count += 1
            changes += 1
        state[2] = other
    return count, changes
