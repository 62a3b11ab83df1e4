"""The group of copies that a document belongs to, exact and near."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.documents.store import fetch
from headrace.flow.artifact import Artifact
from headrace.view.target import Target

PAGE = 25  # copies on one page


@dataclass(frozen=True)
class Copy:
    """A member of a group of copies.

    Attributes:
        row: its row.
        id: its id.
        source: its source.
        origin: ``file:row`` as it was read.
        bytes: of its text.
        exact: whether its text is that of the document.
        reason: why it was removed; '' if it was kept, None before the verdicts.
    """

    row: int
    id: str
    source: str
    origin: str
    bytes: int
    exact: bool
    reason: str | None


@dataclass(frozen=True)
class Copies:
    """A group of copies.

    Attributes:
        size: documents in it, this one and documents of reference sets included; 1 if there is no other.
        found: those in the run.
        first: the place of the first member shown.
        members: some members, in order of rows.
    """

    size: int
    found: int
    first: int
    members: list[Copy]


NONE = Copies(1, 1, 0, [])


def copies_of(target: Target, row: int, first: int) -> Copies | None:
    """The group of a document; None while it is looked for.

    Args:
        target: the run.
        row: the document's row.
        first: the place of the first member to tell about.
    """
    duplicates, documents = target.artifact("duplicates"), target.documents
    if duplicates is None or documents is None:
        return NONE
    own = fetch(duplicates, [row], ["component", "size"]).to_pylist()[0]
    if own["component"] is None:
        return NONE
    component, size = own["component"], own["size"]
    rows = target.later(("copies", component), lambda: members(duplicates, component, size))
    if rows is None:
        return None
    first = min(first, (len(rows) - 1) // PAGE * PAGE)
    return Copies(size, len(rows), first, _told(target, documents, row, rows[first : first + PAGE]))


def members(duplicates: Artifact, component: int, size: int) -> npt.NDArray[np.int64]:
    """The rows of a component, int64[n], ascending; one column is read, from its first member to its last."""
    found: list[npt.NDArray[np.int64]] = []
    left = size
    for rows in _matches(duplicates, component):
        found.append(rows)
        left -= len(rows)
        if not left:
            break
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


def _matches(duplicates: Artifact, component: int) -> Iterator[npt.NDArray[np.int64]]:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    first, _ = duplicates.locate(component)  # a component is named after its first row
    for shard in range(first, len(duplicates.shards)):
        at = int(duplicates.row_offsets[shard])
        with pq.ParquetFile(duplicates.shard_path(shard), pre_buffer=False) as file:
            for group in range(file.num_row_groups):
                about = file.metadata.row_group(group)
                known = about.column(0).statistics
                if known is None or not known.has_min_max or known.min <= component <= known.max:
                    column = file.read_row_group(group, columns=["component"], use_threads=False).column(0)
                    same = pc.fill_null(pc.equal(column, component), False).to_numpy()
                    yield np.flatnonzero(same) + at
                at += about.num_rows


def _told(target: Target, documents: Artifact, row: int, rows: npt.NDArray[np.int64]) -> list[Copy]:
    columns = ["id", "source", "origin_file", "origin_row", "bytes"]
    mine, *others = fetch(documents, [row, *rows.tolist()], columns).to_pylist()
    reasons: list[str | None] = [None] * len(others)
    verdicts = target.artifact("verdicts")
    if verdicts is not None:
        reasons = [reason or "" for reason in fetch(verdicts, rows, ["reason"]).column(0).to_pylist()]
    return [
        Copy(
            number,
            one["id"],
            one["source"],
            f"{one['origin_file']}:{one['origin_row']}",
            one["bytes"],
            one["id"] == mine["id"],
            reason,
        )
        for number, one, reason in zip(rows.tolist(), others, reasons, strict=True)
    ]
