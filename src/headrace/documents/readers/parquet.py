"""Parquet: one document per row, read by row groups and within them by pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.documents.checked_file import open_file
from headrace.documents.readers.base import PART_BYTES, Bad, Item, Lost, Part, Reader, Tally, document, too_large
from headrace.documents.readers.parquet_pages import Column, batch_rows, columns
from headrace.documents.readers.tables import (
    BATCH_BYTES,
    FAILURES,
    Shape,
    batch_items,
    need_memory,
    require,
    told,
    validate,
)
from headrace.documents.sources import InputFile
from headrace.errors import UserError
from headrace.recipe.schema import Source

PAGES = 1 << 18  # bytes read ahead for each column, so that a row group is never held as a whole


EXPANDED = 16  # ratio of decoded to stored bytes of a page, above which more than offsets and validity must be involved


def column_names(file: InputFile) -> set[str]:
    """The names of a file's columns; none if it cannot be read, which reading it will tell."""
    with open_file(file) as stream:
        try:
            return set(pq.ParquetFile(stream).schema_arrow.names)
        except FAILURES as error:
            told(error)
            return set()


class Parquet(Reader):
    """One document per row; runs of row groups are read independently."""

    def split(self, file: InputFile) -> list[Part]:
        """Runs of row groups of about ``PART_BYTES`` uncompressed; a file with a limit is read from its start."""
        if file.take is not None:
            return [Part()]
        with open_file(file) as stream:
            try:
                metadata = pq.ParquetFile(stream).metadata
            except FAILURES as error:
                told(error)
                return [Part()]  # reading it will tell what is wrong
        parts, begin, row, rows, size = [], 0, 0, 0, 0
        for group in range(metadata.num_row_groups):
            rows += metadata.row_group(group).num_rows
            size += metadata.row_group(group).total_byte_size
            if size >= PART_BYTES or group == metadata.num_row_groups - 1:
                parts.append(Part(begin, group + 1, row))
                begin, row, rows, size = group + 1, row + rows, 0, 0
        return parts or [Part()]

    def read(self, file: InputFile, part: Part, source: Source, tally: Tally) -> Iterator[Item]:
        """One item per row."""
        shape = partial(document, name=source.text, tally=tally)
        check = partial(require, name=source.text, url=file.url)
        yield from parquet_items(file, part, tally, shape, check, source.text)


def parquet_items(
    file: InputFile,
    part: Part,
    tally: Tally,
    shape: Shape,
    check: Callable[[pa.Schema], None],
    text: str | None = None,
) -> Iterator[Item]:
    """Items of the row groups of a part; damaged ones are lost from the first row that cannot be read."""
    if file.compression is not None:
        raise UserError("Parquet files are compressed internally, not as a whole.", file.url, "Decompress it first.")
    row = part.row or 0
    with open_file(file) as stream:
        try:
            table = pq.ParquetFile(
                stream,
                buffer_size=PAGES,
                pre_buffer=False,
                page_checksum_verification=True,
                coerce_int96_timestamp_unit="us",  # nanoseconds end in the year 2262, and Spark writes none
            )
            metadata, schema = table.metadata, table.schema_arrow
            schema.names  # noqa: B018 - names that are not UTF-8 are told here
        except FAILURES as error:
            yield Lost(row, f"the Parquet file is corrupt: {told(error)}", bytes=max(file.size, 1))
            return
        check(schema)
        for group in range(part.begin, metadata.num_row_groups if part.end is None else part.end):
            promised = metadata.row_group(group).num_rows
            given = 0
            for found in _batches(stream, file.size, table, group, tally):
                if isinstance(found, pa.RecordBatch):
                    yield from batch_items(found, row + given, tally, shape, text)
                    given += found.num_rows
                    continue
                found.row, found.rows = row + given, promised - given
                if isinstance(found, Bad):
                    tally.read += found.rows
                yield found
            row += max(promised, 0)


def _batches(
    stream: IO[bytes], size: int, table: pq.ParquetFile, group: int, tally: Tally
) -> Iterator[pa.RecordBatch | Bad | Lost]:
    """The batches of a row group, and last what happened to any missing rows."""
    left = table.metadata.row_group(group).num_rows
    try:
        chunks = columns(stream, size, table, group)
        if left < 0 or any(chunk.flat and sum(page.values for page in chunk.pages) != left for chunk in chunks):
            raise ValueError("its columns differ in their rows")
        if large := _too_large(chunks, tally):
            if left:
                yield Bad(0, large)
            return
        batches = table.iter_batches(batch_rows(chunks, left, BATCH_BYTES), row_groups=[group], use_threads=False)
        while left and (batch := next(batches, None)) is not None:
            validate(batch)
            if batch.num_rows > left:
                raise ValueError("it has more rows than it says")
            left -= batch.num_rows
            yield batch
        if left:
            raise ValueError("it has fewer rows than it says")
    except FAILURES as error:
        yield Lost(0, f"the Parquet file is corrupt in row group {group}: {told(error)}")


def _too_large(chunks: list[Column], tally: Tally) -> str:
    """What is wrong with a row group that has a page with more bytes than its rows may have.

    Raises:
        MemoryShareError: the rows are within the limit, but a page does not fit in the task's memory.
    """
    for chunk in chunks:
        sizes = [(page.size, page.values) for page in chunk.pages]
        if not chunk.flat:  # all values may be in one row, where few bytes can stand for many values
            pairs = zip(chunk.pages, chunk.decoded.tolist(), strict=True)
            sizes = [(taken, 1) for page, taken in pairs if taken > EXPANDED * page.size]
        for size, rows in sizes:
            if size > max(rows, 1) * tally.limit:
                return f"{too_large(size, tally.limit)}, in a page of the column {chunk.path!r}"
        need_memory(tally, 2 * max([chunk.largest, *(size for size, _ in sizes)]), "a page")
    return ""
