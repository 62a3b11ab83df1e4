"""The license of each document, and who says so: from the sidecar of licenses, or from the columns of documents."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace import spdx
from headrace.documents.store import fetch, read_columns
from headrace.flow.artifact import Artifact

SCHEMA = pa.schema([("license", pa.string()), ("found", pa.string())])
"""``license`` is an SPDX expression if it is recognized, otherwise as it was stated, null if nothing states it;
``found`` is one of :data:`FOUND`, null without a license."""

FOUND = {
    "text": "an SPDX line among the first lines of the document",
    "field": "a field of the document's record",
    "file": "a license file of the document's repository",
    "source": "the recipe's declaration for the source",
}
"""How a license was found, in order of precedence."""

Declared = Mapping[str, str | None]
"""The license that a recipe declares for each source."""


def licence_columns(documents: Artifact, shard: int, licences: Artifact | None, declared: Declared) -> pa.Table:
    """The licenses of a shard's documents, in :data:`SCHEMA`.

    Args:
        documents: the documents.
        shard: which.
        licences: the sidecar, None if the run built none.
        declared: by source; for those that are not named, it counts as found in a field.
    """
    if licences is not None:
        return read_columns(licences.shard_path(shard), SCHEMA.names)
    return stated(read_columns(documents.shard_path(shard), ["source", "license"]), declared)


def with_licences(table: pa.Table, documents: Artifact, shard: int, licences: Artifact | None) -> pa.Table:
    """All rows of a shard of documents, with the licenses of :func:`licence_columns` instead of those stated."""
    found = licence_columns(documents, shard, licences, {}).column("license")
    return table.set_column(table.column_names.index("license"), "license", found)


def licences_of(documents: Artifact, rows: np.ndarray, licences: Artifact | None) -> list[str | None]:
    """The licenses of some documents, as in :func:`licence_columns`.

    Args:
        documents: the documents.
        rows: their global rows, integers[n].
        licences: the sidecar, None if the run built none.
    """
    if licences is not None:
        found = fetch(licences, rows, ["license"])
    else:
        found = stated(fetch(documents, rows, ["source", "license"]), {})
    licenses: list[str | None] = found.column("license").to_pylist()
    return licenses


def stated(documents: pa.Table | pa.RecordBatch, declared: Declared) -> pa.Table:
    """The licenses that records and the recipe state, in :data:`SCHEMA`.

    The column ``license`` holds the record's own field or, where it has none, the source's declaration. If they are
    equal, it counts as the declaration.

    Args:
        documents: with the columns ``source`` and ``license``.
        declared: by source.
    """
    sources, said = (_whole(documents.column(name)).dictionary_encode() for name in ("source", "license"))
    names = [spdx.stated(text) for text in said.dictionary.to_pylist()]
    licences = pa.array([None if name is None else spdx.normalised(name) for name in names], pa.string())
    license = licences.take(said.indices)
    defaults = pa.array([declared.get(name) for name in sources.dictionary.to_pylist()], pa.string())
    same = pc.fill_null(pc.equal(said.cast(pa.string()), defaults.take(sources.indices)), False)
    found = pc.if_else(pc.is_null(license), None, pc.if_else(same, "source", "field"))
    return pa.table([license, found.cast(pa.string())], schema=SCHEMA)


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
