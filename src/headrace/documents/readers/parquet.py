"""Parquet: one document a row, read by row groups and within them by pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.documents.readers.base import PART_BYTES, Bad, Item, Part, Reader, Tally, document
from headrace.documents.readers.streams import open_file
from headrace.documents.readers.tables import BATCH_BYTES, batch_items, require
from headrace.documents.sources import InputFile
from headrace.errors import UserError
from headrace.recipe.schema import Source

PAGES = 1 << 18  # bytes read ahead for each column, so that a row group is never held whole


class Parquet(Reader):
    """One document a row; runs of row groups are read apart."""

    def split(self, file: InputFile) -> list[Part]:
        """Runs of row groups of about ``PART_BYTES`` before compression; a file with a limit is read from its start."""
        if file.take is not None:
            return [Part()]
        try:
            with open_file(file) as stream:
                metadata = pq.ParquetFile(stream).metadata
        except (pa.ArrowInvalid, OSError):
            return [Part()]  # reading it tells what is wrong
        parts, begin, row, rows, size = [], 0, 0, 0, 0
        for group in range(metadata.num_row_groups):
            rows += metadata.row_group(group).num_rows
            size += metadata.row_group(group).total_byte_size
            if size >= PART_BYTES or group == metadata.num_row_groups - 1:
                parts.append(Part(begin, group + 1, row))
                begin, row, rows, size = group + 1, row + rows, 0, 0
        return parts or [Part()]

    def read(self, file: InputFile, part: Part, source: Source, tally: Tally) -> Iterator[Item]:
        """One item a row."""
        shape = partial(document, name=source.text, tally=tally)
        yield from parquet_items(file, part, tally, shape, lambda schema: require(schema, source.text, file.url))


def parquet_items(
    file: InputFile,
    part: Part,
    tally: Tally,
    shape: Callable[[int, Any], Item],
    check: Callable[[pa.Schema], None],
) -> Iterator[Item]:
    """Items of the row groups of a part. Where a row group is corrupt the file ends with one bad row."""
    row = part.row or 0
    if file.compression is not None:
        raise UserError("A Parquet file is compressed inside, not as a whole.", file.url, "Decompress it first.")
    with open_file(file) as stream:
        try:
            table = pq.ParquetFile(stream, buffer_size=PAGES, pre_buffer=False)
            check(table.schema_arrow)
            metadata = table.metadata
            groups = range(part.begin, metadata.num_row_groups if part.end is None else part.end)
            for group in groups:
                about = metadata.row_group(group)
                size = max(1, BATCH_BYTES * about.num_rows // max(about.total_byte_size, 1))
                for batch in table.iter_batches(batch_size=size, row_groups=[group], use_threads=False):
                    yield from batch_items(batch, row, tally, shape)
                    row += batch.num_rows
        except (pa.ArrowInvalid, OSError) as error:
            if getattr(error, "errno", None) is not None:
                raise
            tally.read += 1
            yield Bad(row, f"the Parquet file is corrupt: {str(error).splitlines()[0]}")
