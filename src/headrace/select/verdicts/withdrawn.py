"""Documents removed by id, repository or license."""

from __future__ import annotations

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from headrace.recipe.schema import Withdrawn
from headrace.select.verdicts.filters import Removals

COLUMNS = ("id", "repo", "license")
"""The document columns that are examined."""


def named(documents: pa.RecordBatch | pa.Table, withdrawn: Withdrawn) -> list[tuple[str, np.ndarray]]:
    """Which documents are withdrawn, for each of :data:`COLUMNS`: bool[n]."""
    values = (withdrawn.ids, withdrawn.repos, withdrawn.licenses)
    out = []
    for column, wanted in zip(COLUMNS, values, strict=True):
        found = pc.is_in(documents.column(column), pa.array(wanted, pa.string()), skip_nulls=True)
        out.append((column, np.asarray(found, dtype=bool)))
    return out


def withdraw(documents: pa.RecordBatch, withdrawn: Withdrawn) -> Removals:
    """Remove what is withdrawn.

    Args:
        documents: with :data:`COLUMNS`.
        withdrawn: the recipe's section.

    Returns:
        The reason ``withdrawn`` or null, and as evidence ``{"by": the column, "value": its value}``.
    """
    reasons = np.full(documents.num_rows, None, dtype=object)
    evidence = np.full(documents.num_rows, None, dtype=object)
    undecided = np.ones(documents.num_rows, dtype=bool)
    for column, found in named(documents, withdrawn):
        taken = np.flatnonzero(found & undecided)
        undecided[taken] = False
        for row in taken.tolist():
            reasons[row] = "withdrawn"
            evidence[row] = orjson.dumps({"by": column, "value": documents.column(column)[row].as_py()}).decode()
    return Removals(pa.array(reasons, pa.string()), pa.array(evidence, pa.string()))
