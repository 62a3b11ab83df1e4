"""What a run made, as tables of other libraries: ``datasets``, pyarrow, polars and pandas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from headrace.documents.store import SCHEMA, read_batches, read_columns
from headrace.errors import UserError
from headrace.flow.artifact import Artifact
from headrace.flow.mirror import working_folder
from headrace.run_folder import artifact, open_sequence
from headrace.sequence.store import ArrowSequence

if TYPE_CHECKING:
    import datasets
    import pandas
    import polars

BATCH_BYTES = 8 << 20  # a row group of documents has at most so much text, or is one larger document


def to_dataset(path: Path | str, stage: str | None = None) -> datasets.Dataset:
    """A stage's sequence as a ``datasets.Dataset`` over the same mapped files: nothing is copied.

    Columns are ``tokens``, ``loss`` and ``segments`` as in the files (docs/formats.md). For training,
    :class:`TorchDataset` gives the same rows as a causal language model takes them.

    Args:
        path: a run folder, or the folder of one of headrace's sequences.
        stage: the stage's name, where there are several.

    Raises:
        UserError: there is no such sequence, it is in another format, or ``datasets`` is not installed.
    """
    sequence = open_sequence(path, stage)
    if not isinstance(sequence, ArrowSequence):
        raise UserError(
            "Only headrace's own sequences are mapped.",
            str(path),
            "Load these files with `datasets.load_dataset`, or copy rows with `sequence.to_arrow(start, stop)`.",
        )
    try:
        from headrace.mapped import mapped_dataset
    except ModuleNotFoundError as error:
        raise UserError(f"This needs the package {error.name}.", str(path), "Run `pip install datasets`.") from None
    return mapped_dataset(sequence)


def open_documents(run: Path | str, *, removed: bool = False) -> DocumentTable:
    """The documents of a run, with what was decided about each.

    Args:
        run: the run folder, or its URL.
        removed: also those that were removed.

    Raises:
        UserError: the run has no documents yet; or no verdicts, unless ``removed`` asks for all documents.
    """
    run = working_folder(run)
    documents = artifact(run, "documents")
    try:
        return DocumentTable(documents, artifact(run, "verdicts"), removed)
    except UserError:
        if not removed:
            raise
        return DocumentTable(documents, None, removed)


class DocumentTable:
    """Documents as one table: the columns of documents and verdicts (docs/formats.md), a row a document.

    Args:
        documents: the artifact.
        verdicts: its verdicts; None if there are none yet.
        removed: whether removed documents are rows too.
    """

    def __init__(self, documents: Artifact, verdicts: Artifact | None, removed: bool) -> None:
        self.documents, self.verdicts, self.removed = documents, verdicts, removed
        self.schema = SCHEMA
        if verdicts is not None and verdicts.shards:
            told = read_columns(verdicts.shard_path(0)).schema
            self.schema = pa.schema([*SCHEMA, *told])

    def __len__(self) -> int:
        if self.removed or self.verdicts is None:
            return self.documents.rows
        return sum(counts["kept"] for counts in self.verdicts.manifest.counts.values())

    def batches(self, columns: Sequence[str] | None = None) -> pa.RecordBatchReader:
        """Stream the documents in batches of at most 8 MB, or one larger document.

        Args:
            columns: names; None for all.

        Raises:
            UserError: there is no such column.
        """
        wanted = list(self.schema.names if columns is None else columns)
        missing = [name for name in wanted if name not in self.schema.names]
        if missing:
            raise UserError(
                f"Documents have no column {missing[0]!r}.",
                str(self.documents.path),
                f"Their columns are {', '.join(self.schema.names)}.",
            )
        schema = pa.schema([self.schema.field(name) for name in wanted])
        return pa.RecordBatchReader.from_batches(schema, self._batches(schema))

    def _batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        of_documents = [name for name in schema.names if name in SCHEMA.names]
        of_verdicts = [name for name in schema.names if name not in SCHEMA.names]
        for shard in range(len(self.documents.shards)):
            told = None
            if self.verdicts is not None:
                told = read_columns(self.verdicts.shard_path(shard), [*{*of_verdicts, "keep"}]).combine_chunks()
            row = 0
            # Rows are counted by a column even if only verdicts are asked for.
            for batch in read_batches(self.documents.shard_path(shard), of_documents or ["bytes"], BATCH_BYTES):
                table = pa.Table.from_batches([batch])
                if told is not None:
                    verdict = told.slice(row, batch.num_rows)
                    for name in of_verdicts:
                        table = table.append_column(verdict.schema.field(name), verdict.column(name))
                    if not self.removed:
                        table = table.filter(verdict.column("keep"))
                row += batch.num_rows
                yield from table.select(schema.names).cast(schema).combine_chunks().to_batches()

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All documents in memory; some columns, or all."""
        return self.batches(columns).read_all()

    def to_pandas(self, columns: Sequence[str] | None = None) -> pandas.DataFrame:
        """All documents in memory; some columns, or all."""
        return self.to_arrow(columns).to_pandas()

    def to_polars(self, columns: Sequence[str] | None = None) -> polars.DataFrame:
        """All documents in memory; some columns, or all."""
        import polars

        frame: Any = polars.from_arrow(self.to_arrow(columns))
        return frame

    def scan(self) -> polars.LazyFrame:
        """A lazy frame: polars reads only the columns that a query uses, in bounded memory where the query allows."""
        import polars

        parts = [artifact for artifact in (self.documents, self.verdicts) if artifact is not None]
        files = [[str(part.shard_path(shard)) for shard in range(len(part.shards))] for part in parts]
        frame = polars.concat([polars.scan_parquet(paths) for paths in files], how="horizontal")
        return frame if self.removed or self.verdicts is None else frame.filter(polars.col("keep"))
