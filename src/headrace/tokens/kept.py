"""Read the documents that were kept, one row group at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.documents.store import read_columns
from headrace.flow.artifact import Artifact, ConservationError

SPLITS = ("train", "validation", "test")
"""The splits, in the order of their codes in the token store."""


class KeptRows(NamedTuple):
    """Kept documents of one row group.

    Attributes:
        rows: int64[n]: their row numbers within the shard.
        split: uint8[n]: index into :data:`SPLITS`.
        columns: the requested columns, n rows each, in one chunk.
    """

    rows: np.ndarray
    split: np.ndarray
    columns: dict[str, pa.Array]


def verdicts_of(verdicts: Artifact, shard: int) -> tuple[np.ndarray, np.ndarray]:
    """Which documents of a shard are kept, bool[n], and each one's split, uint8[n]: index into :data:`SPLITS`."""
    table = read_columns(verdicts.shard_path(shard), ["keep", "split"])
    keep = np.asarray(table["keep"].combine_chunks().to_numpy(zero_copy_only=False), dtype=bool)
    names = table["split"].cast(pa.string()).combine_chunks()
    split = np.zeros(len(keep), dtype=np.uint8)
    for code, name in enumerate(SPLITS):
        split[pa.compute.equal(names, name).fill_null(False).to_numpy(zero_copy_only=False)] = code
    return keep, split


def kept_rows(
    documents: Artifact, verdicts: Artifact, shard: int, columns: Sequence[str], but: np.ndarray | None = None
) -> Iterator[KeptRows]:
    """Read the kept documents of a shard; memory depends on the largest row group.

    Args:
        documents: the documents artifact.
        verdicts: its verdicts.
        shard: the shard's index.
        columns: columns of ``documents``.
        but: int64[m]: rows of the shard to leave out.

    Raises:
        ConservationError: the verdicts are not aligned with the documents.
    """
    keep, split = verdicts_of(verdicts, shard)
    if but is not None:
        keep[but] = False
    with pq.ParquetFile(documents.shard_path(shard)) as file:
        if file.metadata.num_rows != len(keep):
            raise ConservationError(f"documents shard {shard} has {file.metadata.num_rows} rows, verdicts {len(keep)}")
        start = 0
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            rows = start + np.flatnonzero(keep[start:end])
            if len(rows):
                data = file.read_row_group(group, columns=list(columns), use_threads=False)
                found = data.filter(pa.array(keep[start:end])) if len(rows) < end - start else data
                yield KeptRows(rows, split[rows], {name: found[name].combine_chunks() for name in columns})
            start = end
