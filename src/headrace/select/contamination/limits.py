"""Whether what was found in a document removes it: the recipe's limits, applied to a row of the sidecar."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.recipe.schema import Decontaminate

_SHAPE = "shape_"


def whole_or_much(table: pa.Table | pa.RecordBatch, config: Decontaminate) -> npt.NDArray[np.bool_]:
    """Which documents have a text whole, or enough of an item's n-grams, bool[rows]."""
    whole = pc.equal(table.column("method"), "substring")
    much = pc.greater_equal(table.column("overlap"), config.overlap)
    return np.asarray(pc.fill_null(pc.or_kleene(whole, much), False))


def same_shape(table: pa.Table | pa.RecordBatch, config: Decontaminate) -> npt.NDArray[np.bool_]:
    """Which documents have enough of a program's shape, bool[rows]."""
    if config.shapes is None or f"{_SHAPE}overlap" not in table.schema.names:
        return np.zeros(table.num_rows, dtype=bool)
    return np.asarray(pc.fill_null(pc.greater_equal(table.column(f"{_SHAPE}overlap"), config.shapes.overlap), False))


def telling(row: dict[str, Any], by_shape: bool) -> dict[str, Any]:
    """What a row says about one item: about that of a shape if ``by_shape``, or if there is no other.

    Returns:
        The columns that every sidecar has; of a shape, ``method`` is ``shape``.
    """
    plain = {name: value for name, value in row.items() if not name.startswith(_SHAPE)}
    shape = {name.removeprefix(_SHAPE): value for name, value in row.items() if name.startswith(_SHAPE)}
    if not shape or shape["item"] is None or not (by_shape or plain["item"] is None):
        return plain
    return {**dict.fromkeys(plain), **shape, "method": "shape"}


def limit_of(told: dict[str, Any], config: Decontaminate) -> float:
    """The limit for what :func:`telling` returned."""
    return config.shapes.overlap if told["method"] == "shape" and config.shapes else config.overlap
