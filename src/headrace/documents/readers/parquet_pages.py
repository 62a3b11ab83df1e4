"""How large Parquet pages become when decoded, from their headers alone: a few bytes can stand for gigabytes.

The footer gives sizes of encoded values, which hide dictionaries, run lengths and shared prefixes, and a damaged or
malicious footer may say anything. Readers allocate memory by page headers, so those are checked here. They use Thrift's
compact protocol (parquet-format, ``parquet.thrift`` and ``Encodings.md``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HEADER = 1 << 12  # bytes read for a header at first; statistics may need more
MAX_HEADER = 16 << 20  # as parquet-cpp
SMALL = 1 << 16  # a smaller dictionary is not worth searching for its longest entry
MAX_BATCH = 1 << 16  # rows, as pyarrow's default

_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_ABOUT = {_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}  # the header fields that describe each kind
_PLAIN_DICTIONARY, _DELTA_BYTE_ARRAY, _RLE_DICTIONARY = 2, 7, 8
_RATIOS = {"UNCOMPRESSED": 1, "SNAPPY": 32, "LZ4": 256}  # maximum compression ratio of each format, rounded up
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8}


class PageError(ValueError):
    """An invalid page header: the column chunk is damaged."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a column chunk.

    Attributes:
        kind: its type in ``parquet.thrift``.
        values: the number of values; of levels for nested columns.
        encoding: the encoding of the values.
        start: the position of its content in the file.
        stored: bytes of the content in the file.
        size: bytes of the content uncompressed, which a reader holds at once.
    """

    kind: int
    values: int
    encoding: int
    start: int
    stored: int
    size: int


@dataclass(frozen=True, slots=True)
class Column:
    """A column chunk.

    Attributes:
        path: the column's dotted name.
        flat: not inside a list, so that each value is a row.
        pages: its data pages.
        decoded: int64[pages], the maximum size of each page as Arrow arrays.
        largest: the uncompressed bytes of its largest page.
    """

    path: str
    flat: bool
    pages: list[Page]
    decoded: np.ndarray
    largest: int


def columns(stream: IO[bytes], size: int, table: pq.ParquetFile, group: int) -> list[Column]:
    """The column chunks of a row group.

    Args:
        stream: the file; its position is moved.
        size: bytes of the file.
        table: the same file, opened.
        group: the row group.

    Raises:
        PageError: a chunk or page lies outside the file, or a header cannot be read.
    """
    about = table.metadata.row_group(group)
    return [_column(stream, size, about.column(i), table.schema.column(i)) for i in range(about.num_columns)]


def batch_rows(chunks: list[Column], rows: int, budget: int) -> int:
    """How many rows to decode at once so that no column takes more than a budget, or than its largest page.

    Args:
        chunks: the row group's columns.
        rows: rows of the row group.
        budget: bytes for all columns together.
    """
    size = min(MAX_BATCH, max(rows, 1))
    for chunk in chunks:
        if not chunk.pages:
            continue
        # With lists, rows may start anywhere: assume they are spread evenly.
        even = np.full(len(chunk.pages), rows / len(chunk.pages))
        steps = [page.values for page in chunk.pages] if chunk.flat else even
        ends, taken = np.cumsum([0, *steps]), np.cumsum([0, *chunk.decoded])
        while size > 1 and _most(ends, taken, size) > max(budget // len(chunks), chunk.largest):
            size //= 2
    return size


def _most(ends: np.ndarray, taken: np.ndarray, rows: int) -> float:
    """The maximum bytes in any range of that many rows; it starts or ends at a page boundary."""
    starts = np.concatenate([ends, ends - rows]).clip(0)
    return float(np.max(np.interp(starts + rows, ends, taken) - np.interp(starts, ends, taken)))


def _column(stream: IO[bytes], size: int, about: Any, schema: Any) -> Column:
    begin = about.data_page_offset
    if about.has_dictionary_page and 0 < (about.dictionary_page_offset or 0) < begin:
        begin = about.dictionary_page_offset
    end = begin + about.total_compressed_size
    if not 0 <= begin <= end <= size:
        raise PageError(f"the column {about.path_in_schema!r} lies outside the file")
    width = _WIDTHS.get(about.physical_type, 0) or (schema.length if about.physical_type != "BYTE_ARRAY" else 0)
    entry, largest, seen = width, 0, 0
    pages: list[tuple[Page, int]] = []
    for page in _pages(stream, begin, end, about.num_values):
        if page.size > page.stored * _RATIOS.get(about.compression, page.size) + SMALL:
            raise PageError("a page's size is more than its compression can give")
        largest = max(largest, page.size)
        if page.kind == _DICTIONARY:
            entry = width or _longest(stream, page, about.compression)
        elif page.kind in (_DATA, _DATA_V2):
            pages.append((page, _decoded(page, width, entry)))
            seen += page.values
    if seen != about.num_values:
        raise PageError(f"the column {about.path_in_schema!r} has {seen} of {about.num_values} values")
    decoded = np.array([taken for _, taken in pages], dtype=np.int64)
    flat = schema.max_repetition_level == 0
    return Column(about.path_in_schema, flat, [page for page, _ in pages], decoded, largest)


def _decoded(page: Page, width: int, entry: int) -> int:
    slots = page.values * (width or 5)  # an offset, and levels or validity
    if page.encoding in (_PLAIN_DICTIONARY, _RLE_DICTIONARY):
        return slots + page.values * entry
    if page.encoding == _DELTA_BYTE_ARRAY:  # each value may repeat everything before it
        return slots + page.values * page.size
    return slots + page.size


def _longest(stream: IO[bytes], page: Page, compression: str) -> int:
    """Bytes of the longest entry in a dictionary of byte arrays."""
    if page.size < SMALL:
        return page.size
    stream.seek(page.start)
    data: Any = stream.read(page.stored)
    if compression != "UNCOMPRESSED":
        try:
            data = pa.Codec(compression.lower()).decompress(data, decompressed_size=page.size)
        except (pa.ArrowException, ValueError, OSError):
            return page.size  # reading it will tell what is wrong
    content, at, longest = memoryview(data), 0, 0
    while at + 4 <= len(content):
        length = int.from_bytes(content[at : at + 4], "little")
        longest, at = max(longest, length), at + 4 + length
    return min(longest, page.size)


def _pages(stream: IO[bytes], at: int, end: int, values: int) -> Iterator[Page]:
    """The pages of a chunk, until they cover all its values."""
    seen = 0
    while seen < values and at < end:
        header, length = _header(stream, at, end)
        kind = header.get(1)
        inner = header.get(_ABOUT.get(kind, 0) if isinstance(kind, int) else 0, {})
        inner = inner if isinstance(inner, dict) else {1: None}
        encoding = inner.get(4 if kind == _DATA_V2 else 2, 0)
        numbers: list[Any] = [kind, inner.get(1, 0), encoding, header.get(3), header.get(2)]
        if not all(isinstance(n, int) and n >= 0 for n in numbers):
            raise PageError("a page's header is damaged")
        kind, count, encoding, stored, size = numbers
        if at + length + stored > end:
            raise PageError("a page lies outside its column")
        yield Page(kind, count, encoding, at + length, stored, size)
        at += length + stored
        seen += count if kind in (_DATA, _DATA_V2) else 0


def _header(stream: IO[bytes], at: int, end: int) -> tuple[dict[int, Any], int]:
    """A page's header, and its length."""
    wanted = HEADER
    while True:
        stream.seek(at)
        data = stream.read(min(wanted, end - at))
        try:
            return _struct(data, 0)
        except IndexError:
            if wanted >= MAX_HEADER or len(data) < wanted:
                raise PageError("a page's header is cut short") from None
            wanted *= 4


# Thrift's compact protocol: https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12
_DEPTH = 8  # nesting of structs in a page header; there are three levels


def _struct(data: bytes, at: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    """A struct's numbers and structs by field id, and where it ends; other values are skipped.

    Raises:
        IndexError: the bytes end before the struct does.
        PageError: it is not a struct.
    """
    if depth > _DEPTH:
        raise PageError("a page's header is damaged")
    fields: dict[int, Any] = {}
    field = 0
    while True:
        head = data[at]
        at += 1
        if head == 0:
            return fields, at
        kind, delta = head & 15, head >> 4
        if delta:
            field += delta
        else:
            field, at = _zigzag(data, at)
        fields[field], at = (kind == _TRUE, at) if kind in (_TRUE, _FALSE) else _value(data, at, kind, depth)


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (_I16, _I32, _I64):
        return _zigzag(data, at)
    if kind == _STRUCT:
        return _struct(data, at, depth + 1)
    if kind in (_BYTE, _DOUBLE):
        return None, at + (1 if kind == _BYTE else 8)
    if kind == _BINARY:
        length, at = _varint(data, at)
        return None, at + length
    if kind in (_LIST, _SET):
        head = data[at]
        at += 1
        count, inner = head >> 4, head & 15
        if count == 15:
            count, at = _varint(data, at)
        for _ in range(count):
            if at >= len(data):
                raise IndexError
            _, at = (None, at + 1) if inner in (_TRUE, _FALSE) else _value(data, at, inner, depth + 1)
        return None, at
    raise PageError("a page's header is damaged")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise PageError("a page's header is damaged")


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at
