"""The documents of a run that are exported: which ones, and reading them in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.documents.store import read_columns
from headrace.errors import UserError
from headrace.flow.artifact import Artifact
from headrace.select.licences.columns import licence_columns
from headrace.select.verdicts.splits import SPLITS

FOLDERS = ("documents", "conversations", "removed")
DOCUMENTS, CONVERSATIONS, REMOVED = range(3)
VERDICTS = ("keep", "reason", "evidence", "split")
BATCH_BYTES = (
    8 << 20
)  # tables of about this size are written; row groups of documents are no larger, but for one document
BATCH_ROWS = 1 << 15

Place = tuple[int, list[int]]
"""A shard of documents, and some of its row groups."""


@dataclass(frozen=True)
class Group:
    """Documents that lie together in an export.

    Attributes:
        folder: ``documents``; ``conversations``, which have turns; or ``removed``.
        split: train, validation or test.
    """

    folder: str
    split: str


GROUPS = tuple(Group(folder, split) for folder in FOLDERS for split in SPLITS)


@dataclass(frozen=True)
class Corpus:
    """Documents to export: those that are kept, unless said otherwise.

    Attributes:
        documents, verdicts: the folders of these artifacts; never part of an identity.
        identities: of the two.
        splits: of which splits.
        sources: of which sources; of all if empty.
        removed: also those removed, with the reason.
        license_sidecar: the folder and the identity of the sidecar of licenses, if the run has one.
    """

    documents: str
    verdicts: str
    identities: tuple[str, str]
    splits: tuple[str, ...] = SPLITS
    sources: tuple[str, ...] = ()
    removed: bool = False
    license_sidecar: tuple[str, str] | None = None

    @staticmethod
    def from_json(value: dict[str, Any]) -> Corpus:
        """Read what ``asdict`` gave, after its way through JSON."""
        lists = {name: tuple(held) for name, held in value.items() if isinstance(held, list)}
        return Corpus(**{**value, **lists})

    def params(self) -> dict[str, Any]:
        """What determines which documents these are."""
        params = asdict(self)
        for name in ("documents", "verdicts", "license_sidecar"):
            del params[name]
        return params | ({"licenses": self.license_sidecar[1]} if self.license_sidecar else {})

    def open(self) -> tuple[Artifact, Artifact]:
        """Documents and verdicts; each file is compared with its digest before it is first read.

        Raises:
            UserError: they are gone, damaged or others.
        """
        first, second = self.identities
        return opened_artifact(self.documents, first), opened_artifact(self.verdicts, second)

    def groups(self, documents: pa.Table, verdicts: pa.Table) -> np.ndarray:
        """The group of each document: int8[n] into :data:`GROUPS`, -1 if it is not exported.

        Args:
            documents: with ``source`` and ``turns``.
            verdicts: of the same rows, with ``keep`` and ``split``.
        """
        keep = verdicts.column("keep").to_numpy()
        turns = pc.is_valid(documents.column("turns")).to_numpy()
        split = pc.index_in(verdicts.column("split"), value_set=pa.array(SPLITS)).to_numpy()
        folder = np.where(keep, np.where(turns, CONVERSATIONS, DOCUMENTS), REMOVED)
        wanted = (keep | self.removed) & np.isin(split, [SPLITS.index(name) for name in self.splits])
        if self.sources:
            wanted &= pc.is_in(documents.column("source"), value_set=pa.array(self.sources)).to_numpy()
        return np.where(wanted, folder * len(SPLITS) + split, -1).astype(np.int8)

    def sizes(self, shard: int) -> list[tuple[int, dict[int, tuple[int, int]]]]:
        """Of each row group, its bytes when read, and the documents and bytes of text of each group in it."""
        documents, verdicts = self.open()
        path = documents.shard_path(shard)
        table = read_columns(path, ["bytes", "source", "turns"])
        group = self.groups(table, read_columns(verdicts.shard_path(shard), ["keep", "split"]))
        size = table.column("bytes").to_numpy()
        out = []
        for start, stop, read in _bounds(path):
            found = np.unique(group[start:stop])
            masks = {int(g): group[start:stop] == g for g in found if g >= 0}
            sums = {g: (int(mask.sum()), int(size[start:stop][mask].sum())) for g, mask in masks.items()}
            out.append((read, sums))
        return out

    def read(self, places: Iterable[Place]) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """Row groups with the licenses that the run found and their verdicts as further columns, and the group of each
        row."""
        documents, verdicts = self.open()
        sidecar = None if self.license_sidecar is None else opened_artifact(*self.license_sidecar)
        for shard, row_groups in places:
            path = documents.shard_path(shard)
            told = read_columns(verdicts.shard_path(shard), VERDICTS)
            licenses = licence_columns(documents, shard, sidecar, {}).column("license")
            bounds = _bounds(path)
            with pq.ParquetFile(path, pre_buffer=False) as file:
                for index in row_groups:
                    start, stop, _ = bounds[index]
                    table = file.read_row_group(index, use_threads=False)
                    at = table.column_names.index("license")
                    table = table.set_column(at, "license", licenses.slice(start, stop - start))
                    verdict = told.slice(start, stop - start)
                    for name in ("reason", "evidence"):
                        table = table.append_column(name, verdict.column(name))
                    yield table, self.groups(table, verdict)

    def of(self, group: Group, places: Iterable[Place]) -> Iterator[pa.Table]:
        """The documents of a group in tables of about :data:`BATCH_BYTES`."""
        code = GROUPS.index(group)
        held: list[pa.Table] = []
        size = rows = 0
        for table, groups in self.read(places):
            some = table.filter(pa.array(groups == code))
            if held and (size + some.nbytes > BATCH_BYTES or rows + len(some) > BATCH_ROWS):
                yield pa.concat_tables(held).combine_chunks()
                held, size, rows = [], 0, 0
            held.append(some)
            size, rows = size + some.nbytes, rows + len(some)
        if rows:
            yield pa.concat_tables(held).combine_chunks()


def opened_artifact(path: str, identity: str) -> Artifact:
    """An artifact that an export reads; each file is compared with its digest before it is first read.

    Raises:
        UserError: it is gone, damaged or another.
    """
    artifact = _opened(Path(path))
    if artifact.manifest.identity != identity:
        raise UserError("The run has changed since the export began.", path, "Run the export again.")
    return artifact


@lru_cache(maxsize=4)
def _opened(path: Path) -> Artifact:
    return Artifact.open(path, verify=True)


def _bounds(path: Path) -> list[tuple[int, int, int]]:
    """The first row and the last of each row group, and its bytes when read."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        groups = [file.metadata.row_group(g) for g in range(file.num_row_groups)]
    ends = np.cumsum([group.num_rows for group in groups]).tolist()
    return [(end - group.num_rows, end, group.total_byte_size) for end, group in zip(ends, groups, strict=True)]
