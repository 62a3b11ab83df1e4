"""Rows of Arrow batches as records, whatever file they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from headrace.documents.readers.base import Bad, Item, Tally, not_utf8
from headrace.errors import UserError

BATCH_BYTES = 8 << 20  # rows are turned into Python objects in batches of about this size


def batch_items(batch: pa.RecordBatch, row: int, tally: Tally, shape: Callable[[int, Any], Item]) -> Iterator[Item]:
    """Items of a batch whose first row is ``row``; a batch that does not convert is taken row by row."""
    tally.read += batch.num_rows
    for at, part in _slices(batch, row):
        try:
            values = part.to_pylist()
        except (ValueError, pa.ArrowInvalid):
            for i in range(part.num_rows):
                yield _single(part.slice(i, 1), at + i, shape)
        else:
            for i, value in enumerate(values, at):
                yield shape(i, value)


def _slices(batch: pa.RecordBatch, row: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    size = max(1, BATCH_BYTES * batch.num_rows // max(batch.get_total_buffer_size(), 1))
    for start in range(0, batch.num_rows, size):
        yield row + start, batch.slice(start, size)


def _single(batch: pa.RecordBatch, row: int, shape: Callable[[int, Any], Item]) -> Item:
    try:
        value = batch.to_pylist()[0]
    except UnicodeDecodeError as error:
        return Bad(row, not_utf8(error), error.object[:800].decode("utf-8", "replace")[:200])
    except (ValueError, pa.ArrowInvalid) as error:
        return Bad(row, f"the row cannot be converted: {error}")
    return shape(row, value)


def require(schema: pa.Schema, name: str, url: str) -> None:
    """See that a table has its text column.

    Raises:
        UserError: it has not.
    """
    if name not in schema.names:
        raise UserError(
            f"There is no column {name!r}.", url, f"Set `text:` of the source to one of: {', '.join(schema.names)}."
        )
