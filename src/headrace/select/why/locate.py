"""From a document's name, as a person gives it, to its rows."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa

from headrace.errors import UserError
from headrace.flow.artifact import Artifact
from headrace.select.why.unread import ORIGIN
from headrace.visible import encodable

ID_DIGITS = 32
SHORTEST = 6  # minimum digits of an id
_ID = re.compile(rf"[0-9a-f]{{{SHORTEST},{ID_DIGITS}}}")
_DENSE = re.compile(r"row:([0-9]{1,18})")


def is_name(text: str) -> bool:
    """Whether a text is what :func:`locate` takes: there may be no such document."""
    return bool(_DENSE.fullmatch(text) or _ID.fullmatch(text) or ORIGIN.fullmatch(text))


def locate(documents: Artifact, document: str) -> list[int]:
    """The global row numbers of a document, ascending; documents with equal text share their id.

    Args:
        documents: the documents artifact; only the columns needed are read.
        document: an id or at least its first six digits, ``source:file:row``, or ``row:`` and a global row number.

    Raises:
        UserError: it is none of these, or there is no such document.
    """
    document = encodable(document)  # an argument of the shell may be any bytes
    if dense := _DENSE.fullmatch(document):
        if int(dense[1]) >= documents.rows:
            raise UserError(f"No document has row {dense[1]}.", document, f"Rows range from 0 to {documents.rows - 1}.")
        return [int(dense[1])]
    if _ID.fullmatch(document):
        rows = _rows(documents, ["id"], {"id": document})
    elif origin := ORIGIN.fullmatch(document):
        wanted = {"source": origin[1], "origin_file": origin[2], "origin_row": int(origin[3])}
        rows = _rows(documents, list(wanted), wanted)
    else:
        raise UserError(
            f"{document!r} does not name a document.",
            "DOCUMENT",
            "Give an id (or at least its first six digits), source:file:row, or row:NUMBER.",
        )
    if not rows:
        raise UserError(
            f"The run has no document {document!r}.",
            str(documents.path),
            "Rows count from 0, and empty rows are not documents; ids are in the column `id`.",
        )
    return rows


def _rows(documents: Artifact, columns: list[str], wanted: dict[str, str | int]) -> list[int]:
    """Rows whose columns have the wanted values; an id may be abbreviated."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    found: list[int] = []
    for shard in range(len(documents.shards)):
        table = pq.read_table(documents.shard_path(shard), columns=columns, use_threads=False)
        mask = pa.array(np.ones(table.num_rows, dtype=bool))
        for name, value in wanted.items():
            column = table.column(name).combine_chunks()
            same = pc.starts_with(column, value) if name == "id" else pc.equal(column, value)
            mask = pc.and_(mask, same)
        found += (np.flatnonzero(np.asarray(mask)) + documents.row_offsets[shard]).tolist()
    return found
