"""Label every document with its component: by union-find over mapped files if the budget holds them, otherwise by
contraction on disk. The result is the same.

Three files are written, with one row number per document: ``labels.bin``, the smallest row of its component;
``sizes.bin``, the documents in it; ``exact.bin``, the smallest row with its content id.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from headrace.flow.external_sort import ExternalSort
from headrace.flow.task import TaskContext
from headrace.select.duplicates.components import flatten, row_dtype, spread_sizes, union
from headrace.select.duplicates.contraction import contract

# The share of the budget that union-find's two arrays may fill; the rest is for edges passing through.
UNION_SHARE = 0.75

# Rows written at a time, and edges read at a time from a sorted file.
CHUNK = 1 << 18

LABEL = np.dtype([("row", "<u8"), ("label", "<u8"), ("size", "<u8")])
FIRST = np.dtype([("row", "<u8"), ("label", "<u8")])
GROUP = np.dtype([("label", "<u8"), ("size", "<u8")])

Counts = dict[str, int]

Pairs = Iterable[npt.NDArray[np.unsignedinteger]]
"""Chunks of unsigned[n, 2]: pairs of different rows, the smaller first."""


def needed(rows: int) -> int:
    """The budget in bytes that union-find over this many rows needs."""
    return math.ceil(2 * rows * row_dtype(rows).itemsize / UNION_SHARE)


def fits(rows: int, memory: int) -> bool:
    """Whether union-find over this many rows fits in a budget of bytes."""
    return needed(rows) <= memory


def label(ctx: TaskContext, rows: int, near: Callable[[], Pairs], exact: Callable[[], Pairs]) -> Counts:
    """Write the three files as intermediate files of the task.

    Args:
        ctx: the task.
        rows: the number of documents.
        near: opens the stars of the buckets, unsigned[n, 2] of (smaller row, larger row).
        exact: opens the stars of the content ids, (smallest row, member).

    Returns:
        The number of ``components`` with several documents, the total of their ``members``, and the size of the
        ``largest``.
    """
    found = (_by_union if fits(rows, ctx.memory) else _by_contraction)(ctx, rows, lambda: _both(near, exact))
    with ctx.intermediate("exact.bin") as out:
        if fits(rows, ctx.memory):
            first = _mapped(out.path, rows, True)
            for edges in exact():
                first[edges[:, 1]] = edges[:, 0]
        else:
            sort = ExternalSort(out.path.parent, FIRST, ("row",), ctx.memory)
            for edges in _wide(exact()):
                sort.add(np.ascontiguousarray(edges[:, ::-1]).view(FIRST).reshape(-1))
            with open(out.path, "wb") as f:
                _fill(sort.chunks(), rows, {"label": f})
    return found


def _both(near: Callable[[], Pairs], exact: Callable[[], Pairs]) -> Iterator[npt.NDArray[np.unsignedinteger]]:
    yield from near()
    yield from exact()


def _wide(edges: Pairs) -> Iterator[npt.NDArray[np.uint64]]:
    for chunk in edges:
        yield chunk.astype(np.uint64, copy=False)


def _mapped(path: Path, rows: int, numbered: bool) -> npt.NDArray[np.unsignedinteger]:
    """A new mapped file with a row number for each row: the row itself, or 0."""
    dtype = row_dtype(rows)
    with open(path, "wb") as f:
        f.truncate(rows * dtype.itemsize)
    if not rows:  # an empty file cannot be mapped
        return np.empty(0, dtype=dtype)
    array = np.memmap(path, dtype=dtype, mode="r+", shape=(rows,)).view(np.ndarray)
    for start in range(0, rows if numbered else 0, CHUNK):
        stop = min(rows, start + CHUNK)
        array[start:stop] = np.arange(start, stop, dtype=dtype)
    return array


def _by_union(ctx: TaskContext, rows: int, edges: Callable[[], Pairs]) -> Counts:
    """Union-find directly on the two files, which stay in the page cache while the budget holds them."""
    with ctx.intermediate("labels.bin") as labels, ctx.intermediate("sizes.bin") as others:
        parent, sizes = _mapped(labels.path, rows, True), _mapped(others.path, rows, False)
        for chunk in edges():
            union(parent, chunk)
            ctx.progress(len(chunk))
        found = flatten(parent, sizes)
        spread_sizes(parent, sizes)
    return dict(zip(("components", "members", "largest"), found.tolist(), strict=True))


def _by_contraction(ctx: TaskContext, rows: int, edges: Callable[[], Pairs]) -> Counts:
    folder = ctx.folder / "scratch" / ctx.phase
    by_label = ExternalSort(folder, FIRST, ("label", "row"), ctx.memory // 2)
    for stars in contract(ctx, _wide(edges())):
        by_label.add(np.ascontiguousarray(stars[:, ::-1]).view(FIRST).reshape(-1))
    by_row = ExternalSort(folder, LABEL, ("row",), ctx.memory // 2)
    found = {"components": 0, "members": 0, "largest": 0}
    with ctx.intermediate("stars.bin") as stars_file, ctx.intermediate("groups.bin") as groups_file:
        _count(by_label.chunks(), stars_file.path, groups_file.path)
        for members in _with_sizes(stars_file.path, groups_file.path, found):
            by_row.add(members)
    with ctx.intermediate("labels.bin") as labels, ctx.intermediate("sizes.bin") as sizes:  # noqa: SIM117
        with open(labels.path, "wb") as f, open(sizes.path, "wb") as g:
            _fill(by_row.chunks(), rows, {"label": f, "size": g})
    return found


def _count(chunks: Iterator[npt.NDArray[np.void]], stars: Path, groups: Path) -> None:
    """Write stars in order of label to one file, and the label and size of each component to another."""
    label, size = -1, 0
    with open(stars, "wb") as f, open(groups, "wb") as g:
        for records in chunks:
            records.tofile(f)
            labels = records["label"]
            firsts = np.concatenate([[0], np.flatnonzero(labels[1:] != labels[:-1]) + 1, [len(labels)]])
            closed = np.empty(len(firsts) - 1, dtype=GROUP)
            closed["label"], closed["size"] = labels[firsts[:-1]], np.diff(firsts)
            if int(closed["label"][0]) == label:
                closed["size"][0] += size
            elif size:
                np.array([(label, size + 1)], dtype=GROUP).tofile(g)
            label, size = int(closed["label"][-1]), int(closed["size"][-1])
            closed["size"] += 1  # the smallest row is not a member of its own star
            closed[:-1].tofile(g)
        if size:
            np.array([(label, size + 1)], dtype=GROUP).tofile(g)


def _with_sizes(stars: Path, groups: Path, found: Counts) -> Iterator[npt.NDArray[np.void]]:
    """All members of components, including the smallest rows, with sizes: LABEL[n]. Adds the components to
    ``found``."""
    last = np.empty(0, dtype=GROUP)
    with open(stars, "rb") as f, open(groups, "rb") as g:
        while len(part := np.fromfile(f, dtype=FIRST, count=CHUNK)):
            labels = part["label"]
            new = np.concatenate([[not len(last) or labels[0] != last["label"][0]], labels[1:] != labels[:-1]])
            fresh = np.fromfile(g, dtype=GROUP, count=int(new.sum()))
            known = np.concatenate([last, fresh])
            members = np.empty(len(part) + len(fresh), dtype=LABEL)
            members["row"] = np.concatenate([part["row"], fresh["label"]])
            members["label"] = np.concatenate([labels, fresh["label"]])
            members["size"] = np.concatenate([known["size"][np.cumsum(new) - 1 + len(last)], fresh["size"]])
            yield members
            found["components"] += len(fresh)
            found["members"] += int(fresh["size"].sum())
            found["largest"] = max(found["largest"], int(fresh["size"].max(initial=0)))
            last = known[-1:]


def _fill(chunks: Iterator[npt.NDArray[np.void]], rows: int, files: dict[str, BinaryIO]) -> None:
    """Write fields of each row's record; a row without a record is its own label, with size 1.

    Args:
        chunks: records in ascending order of ``row``.
        rows: the number of rows.
        files: the file for each field.
    """
    pending = next(chunks, None)
    for start in range(0, rows, CHUNK):
        stop = min(rows, start + CHUNK)
        dense = {"label": np.arange(start, stop), "size": np.ones(stop - start, dtype=np.int64)}
        while pending is not None:
            count = int(np.searchsorted(pending["row"], np.uint64(stop)))
            at = pending["row"][:count].astype(np.int64) - start
            for field in files:
                dense[field][at] = pending[field][:count]
            if count < len(pending):
                pending = pending[count:]
                break
            pending = next(chunks, None)
        for field, f in files.items():
            dense[field].astype(row_dtype(rows)).tofile(f)
