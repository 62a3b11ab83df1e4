"""A mapped sequence as a table of ``datasets``."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from datasets import Dataset, Features, NamedSplit
from datasets.table import InMemoryTable

from headrace.sequence.store import ArrowSequence


class MappedTable(InMemoryTable):
    """Rows of a sequence, as views of its files; another process maps the files itself.

    ``datasets`` calls a table mapped only if it is one stream in one file, and would write its caches beside it.
    """

    def __init__(self, sequence: ArrowSequence, start: int, stop: int) -> None:
        table = sequence.to_arrow(start, stop)
        schema = Features.from_arrow_schema(table.schema).arrow_schema
        batches = [pa.record_batch(_Typed(batch, schema)) for batch in table.to_batches()]
        super().__init__(pa.Table.from_batches(batches, schema))
        self.sequence, self.start = sequence, start

    def slice(self, offset: int = 0, length: int | None = None) -> MappedTable:
        """Some of the rows."""
        first = min(self.start + offset, self.start + len(self))
        stop = self.start + len(self) if length is None else min(first + length, self.start + len(self))
        return MappedTable(self.sequence, first, stop)

    def replace_schema_metadata(self, metadata: Any = None) -> MappedTable:
        """The same rows; ``datasets`` notes its features in the schema."""
        made = MappedTable(self.sequence, self.start, self.start + len(self))
        InMemoryTable.__init__(made, self.table.replace_schema_metadata(metadata))
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return MappedTable, (self.sequence, self.start, self.start + len(self))


class _Typed:
    """A batch under a schema of the same layout: ``datasets`` knows no columns without nulls, and would copy them."""

    def __init__(self, batch: pa.RecordBatch, schema: pa.Schema) -> None:
        self.batch, self.schema = batch, schema

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        return self.schema.__arrow_c_schema__(), self.batch.__arrow_c_array__()[1]


def mapped_dataset(sequence: ArrowSequence) -> Dataset:
    """A data set of all rows; its fingerprint is that of the sequence, so nothing is read to name it."""
    split = NamedSplit(sequence.artifact.manifest.stage or "train")
    return Dataset(MappedTable(sequence, 0, len(sequence)), split=split, fingerprint=sequence.fingerprint["digest"])
