"""The stable order of structured records by some of their fields, on which every sort of the exchange is built."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace.flow.radix import sort_words

_SIGN = np.uint64(1 << 63)


def sort_by(records: npt.NDArray[np.void], by: tuple[str, ...]) -> npt.NDArray[np.void]:
    """Sort records by fields, most significant first; records with equal fields keep their order.

    Args:
        records: contiguous, with a structured dtype; may be overwritten.
        by: names of integer fields.

    Returns:
        The records in order: the same array if all fields of its dtype are 64-bit words, otherwise a new one.
    """
    columns = _word_columns(records.dtype, by)
    if columns is None or not records.flags.c_contiguous or not records.flags.writeable:
        return records[order_by(records, by)]
    sort_words(records.view(np.uint64).reshape(-1, records.dtype.itemsize // 8), columns)
    return records


def order_by(records: npt.NDArray[np.void], by: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """The stable order of records by fields, most significant first: int64[n].

    The first field is sorted together with record numbers; the other fields are compared only where records agree in
    the first.
    """
    words = np.empty((len(records), 2), dtype=np.uint64)
    words[:, 0] = _unsigned(records[by[0]])
    words[:, 1] = np.arange(len(records), dtype=np.uint64)
    sort_words(words, (0,))
    order = words[:, 1].astype(np.int64)
    if len(by) == 1:
        return order
    same = words[1:, 0] == words[:-1, 0]
    del words
    group = np.cumsum(~same, dtype=np.int64)  # for each record but the first: the number of changes before it
    tied = np.flatnonzero(np.concatenate([[False], same]) | np.concatenate([same, [False]]))
    if len(tied):
        groups = np.concatenate([[0], group])[tied]
        rows = order[tied]
        order[tied] = rows[np.lexsort([*(records[field][rows] for field in reversed(by[1:])), groups])]
    return order


def _unsigned(values: npt.NDArray[np.integer]) -> npt.NDArray[np.uint64]:
    """Map integers to uint64, preserving their order."""
    if np.issubdtype(values.dtype, np.signedinteger):
        return values.astype(np.int64).view(np.uint64) ^ _SIGN
    return values.astype(np.uint64, copy=False)


def _word_columns(dtype: np.dtype, by: tuple[str, ...]) -> tuple[int, ...] | None:
    """The fields as columns of a record of 64-bit words, or None if the record is not made of those."""
    fields = dtype.fields
    assert fields is not None
    if dtype.itemsize % 8 or any(fields[name][0] != np.uint64 or fields[name][1] % 8 for name in by):
        return None
    return tuple(fields[name][1] // 8 for name in by)
