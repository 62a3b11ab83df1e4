"""Rows of Arrow batches as records, whatever kind of file they come from."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.types as is_

from headrace.documents.readers.base import ORDINARY, TASK_MEMORY, Bad, Item, Tally, null_text
from headrace.documents.readers.side_fields import distinct, json_values
from headrace.errors import MemoryShareError, UserError

BATCH_BYTES = 8 << 20  # rows become Python objects in slices of about this size
ROW_BYTES = 256  # a row's dict and record, without its values
RUN = 1000  # a longer run of rows without text becomes one quarantine entry
# What pyarrow raises on damaged bytes. Lack of memory is not included: that is about the machine, not the file.
FAILURES: tuple[type[Exception], ...] = (
    *(pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowIndexError, pa.ArrowTypeError),
    *(ValueError, KeyError, OverflowError, SystemError, OSError),
)

Shape = Callable[[int, Any], Item]
"""Creates an item from a row's number and its values."""


def told(error: Exception) -> str:
    """The first line of an error about damaged bytes.

    Raises:
        OSError: the error itself, if it came from the disk.
    """
    if isinstance(error, OSError) and error.errno is not None:
        raise error
    return (str(error).splitlines() or [type(error).__name__])[0]


def validate(batch: pa.RecordBatch) -> None:
    """Check that every buffer, offset and index of a batch is within bounds: damaged ones crash whoever follows them.

    Invalid values, such as text that is not UTF-8, are allowed: they affect only their own row.

    Raises:
        pa.ArrowInvalid: something is out of bounds.
    """
    for column in columns_of(batch):
        if column is None:
            continue
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:
            column.validate()
            # Unions and runs have no views, so all of their values must be valid.
            column.view(_unrestricted(column.type)).validate(full=True)


def columns_of(batch: pa.RecordBatch) -> list[pa.Array | None]:
    """The columns of a batch; None for types that pyarrow has no class for (intervals of months, of days)."""
    found: list[pa.Array | None] = []
    for i in range(batch.num_columns):
        try:
            found.append(batch.column(i))
        except KeyError:
            found.append(None)
    return found


def _values(batch: pa.RecordBatch, names: list[str], text: str | None) -> list[list[Any]]:
    """The columns of a batch as JSON values; what cannot be converted says so, and cannot be a document's text."""
    found = []
    for name, field, column in zip(names, batch.schema, columns_of(batch), strict=True):
        unknown = None if name == text else f"({field.type}: pyarrow cannot convert it)"
        found.append([unknown] * batch.num_rows if column is None else json_values(column))
    return found


def _unrestricted(kind: pa.DataType) -> pa.DataType:
    """The type with others of the same layout in place of those that forbid some values."""
    if is_.is_string(kind):
        return pa.binary()
    if is_.is_large_string(kind):
        return pa.large_binary()
    if is_.is_string_view(kind):
        return pa.binary_view()
    if is_.is_date64(kind) or is_.is_time(kind):
        return pa.int32() if kind.bit_width == 32 else pa.int64()
    if is_.is_decimal(kind):
        return pa.binary(kind.byte_width)
    if isinstance(kind, pa.BaseExtensionType):
        return _unrestricted(kind.storage_type)
    if is_.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _unrestricted(kind.value_type), kind.ordered)
    if is_.is_struct(kind):
        return pa.struct([field.with_type(_unrestricted(field.type)) for field in kind])
    if is_.is_map(kind):
        return pa.map_(_unrestricted(kind.key_type), _unrestricted(kind.item_type), kind.keys_sorted)
    for test, make in (
        (is_.is_list, pa.list_),
        (is_.is_large_list, pa.large_list),
        (is_.is_list_view, pa.list_view),
        (is_.is_large_list_view, pa.large_list_view),
    ):
        if test(kind):
            return make(kind.value_field.with_type(_unrestricted(kind.value_type)))
    if is_.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_unrestricted(kind.value_type)), kind.list_size)
    return kind


def need_memory(tally: Tally, size: int, what: str) -> None:
    """Check that there is memory for what a table can only decompress as a whole.

    Raises:
        MemoryShareError: there is not.
    """
    if size > max(8 * ORDINARY, tally.memory - TASK_MEMORY):
        raise MemoryShareError(
            f"Decompressing {what} takes {size:,} bytes, but a task may use only {tally.memory:,} bytes of memory.",
            "",
            "Raise --memory, or write the table in smaller pieces.",
        )


def batch_items(batch: pa.RecordBatch, row: int, tally: Tally, shape: Shape, text: str | None) -> Iterator[Item]:
    """Items of a valid batch.

    Args:
        batch: the batch.
        row: the number of its first row.
        tally: counts its rows.
        shape: creates the items.
        text: the text column, if it has a name: runs of rows in which it is null are reported as one.
    """
    tally.read += batch.num_rows
    tally.advance(batch.nbytes)
    names = distinct(batch.schema.names)
    nulls = 0  # rows before the slice, not yet reported
    for start, part in _slices(batch, 0, columns_of(batch)[names.index(text)] if text in names else None):
        if part is None:
            nulls += start
            continue
        if nulls:
            yield Bad(row + start - nulls, null_text(str(text)), rows=nulls)
            nulls = 0
        if part.num_rows == 1 and (size := _weight(part) - ROW_BYTES) > tally.room():
            yield tally.too_large(row + start, size)
            continue
        columns = _values(part, names, text)
        values = zip(*columns, strict=True) if columns else [()] * part.num_rows
        for i, value in enumerate(values, row + start):
            yield shape(i, dict(zip(names, value, strict=True)))
    if nulls:
        yield Bad(row + batch.num_rows - nulls, null_text(str(text)), rows=nulls)


def _slices(batch: pa.RecordBatch, start: int, text: pa.Array | None) -> Iterator[tuple[int, pa.RecordBatch | None]]:
    """Yield (first row, slice) of about ``BATCH_BYTES``; (rows, None) for more than ``RUN`` consecutive rows without
    text."""
    rows = batch.num_rows
    if rows > RUN and text is not None and text.null_count == rows:
        yield rows, None
    elif rows <= 1 or _weight(batch) <= BATCH_BYTES:
        if rows:
            yield start, batch
    else:
        half = rows // 2
        yield from _slices(batch.slice(0, half), start, None if text is None else text.slice(0, half))
        yield from _slices(batch.slice(half), start + half, None if text is None else text.slice(half))


def _weight(batch: pa.RecordBatch) -> int:
    return batch.num_rows * ROW_BYTES + sum(map(_column_weight, columns_of(batch)))


def _column_weight(column: pa.Array | None) -> int:
    """Bytes of a column; values of a dictionary or run are created once for all slots that share them."""
    if column is None:
        return 0
    if is_.is_dictionary(column.type):
        entries = column.dictionary
        return int(column.indices.nbytes) + entries.nbytes * min(len(column), len(entries)) // max(len(entries), 1)
    if is_.is_struct(column.type):
        return len(column) + sum(_column_weight(_child(column, i)) for i in range(column.type.num_fields))
    return int(column.nbytes)


def _child(column: pa.StructArray, number: int) -> pa.Array | None:
    try:
        return column.field(number)
    except KeyError:
        return None


def require(schema: pa.Schema, name: str, url: str) -> None:
    """Check that a table has its text column, or the field that a dotted name leads to.

    Raises:
        UserError: it does not.
    """
    names = _names(schema)
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        raise UserError(
            f"There is no column {name!r}.",
            url,
            (f"Did you mean {near[0]!r}? " if near else "")
            + f"Set `text:` of the source to one of: {', '.join(names)}.",
        )


def _names(fields: pa.Schema | pa.StructType, prefix: str = "") -> list[str]:
    names = []
    for field in fields:
        names.append(prefix + field.name)
        kind = field.type.value_type if is_.is_dictionary(field.type) else field.type
        if is_.is_struct(kind):
            names += _names(kind, f"{prefix}{field.name}.")
    return names
