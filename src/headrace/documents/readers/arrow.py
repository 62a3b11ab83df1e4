"""Arrow IPC, as a file or as a stream (the form that Hugging Face datasets keeps): one document a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pyarrow as pa

from headrace.documents.readers.base import Bad, Item, Part, Reader, Tally, document
from headrace.documents.readers.streams import open_file
from headrace.documents.readers.tables import batch_items, require
from headrace.documents.sources import InputFile
from headrace.errors import UserError
from headrace.recipe.schema import Source

MAGIC = b"ARROW1"


class Arrow(Reader):
    """One document a row."""

    def read(self, file: InputFile, part: Part, source: Source, tally: Tally) -> Iterator[Item]:
        """One item a row."""
        shape = partial(document, name=source.text, tally=tally)
        yield from arrow_items(file, tally, shape, lambda schema: require(schema, source.text, file.url))


def arrow_items(
    file: InputFile, tally: Tally, shape: Callable[[int, Any], Item], check: Callable[[pa.Schema], None]
) -> Iterator[Item]:
    """Items of all record batches. Where the file is corrupt it ends with one bad row."""
    if file.compression is not None:
        raise UserError("Compressed Arrow files are not read.", file.url, "Decompress it, or write it as Parquet.")
    row = 0
    with open_file(file) as stream:
        try:
            for batch in _batches(file, stream, check):
                yield from batch_items(batch, row, tally, shape)
                row += batch.num_rows
        except (pa.ArrowInvalid, OSError) as error:
            if getattr(error, "errno", None) is not None:
                raise
            tally.read += 1
            yield Bad(row, f"the Arrow file is corrupt: {str(error).splitlines()[0]}")


def _batches(file: InputFile, stream: Any, check: Callable[[pa.Schema], None]) -> Iterator[pa.RecordBatch]:
    magic = stream.read(len(MAGIC))
    stream.seek(0)
    # A memory map keeps uncompressed batches, however large, out of the process's own memory.
    source = pa.PythonFile(stream, mode="r") if file.remote else pa.memory_map(file.url)
    if magic == MAGIC:
        reader = pa.ipc.open_file(source)
        check(reader.schema)
        for i in range(reader.num_record_batches):
            yield reader.get_batch(i)
    else:
        reader = pa.ipc.open_stream(source)
        check(reader.schema)
        yield from reader
