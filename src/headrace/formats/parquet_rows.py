"""Rows of tokens in Parquet: headrace's own with their segments, and other people's with ``input_ids``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.documents.readers.parquet_pages import columns as page_columns
from headrace.documents.readers.tables import FAILURES, told, validate
from headrace.flow.isolation import Kept, ProcessDied
from headrace.formats.files import Facts
from headrace.formats.table_rows import MOST_GROUP, TableRows, ids_in, ids_name, unreadable
from headrace.sequence.reader import ELSEWHERE, SEGMENT, Segments
from headrace.sequence.windows import KINDS, PADDING

SEGMENT_FIELDS = pa.struct(
    [
        ("start", pa.int32()),
        ("length", pa.int32()),
        ("kind", pa.string()),
        ("source", pa.string()),
        ("epoch", pa.int32()),
        ("offset", pa.int32()),
        ("document", pa.int64()),
        ("id", pa.string()),
        ("origin_file", pa.string()),
        ("origin_row", pa.int64()),
        ("license", pa.string()),
        ("repo", pa.string()),
        ("path", pa.string()),
        ("language", pa.string()),
    ]
)
SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("loss_mask", pa.list_(pa.bool_())),
        ("text", pa.large_string()),
        ("segments", pa.list_(SEGMENT_FIELDS)),
    ]
)
# What :mod:`headrace.documents.readers.parquet_pages` and this file ask of a column.
ASKED = (
    *("data_page_offset", "has_dictionary_page", "dictionary_page_offset", "total_compressed_size"),
    *("num_values", "path_in_schema", "physical_type", "compression"),
)
_library = Kept(f"{__name__}:looked_at")
_NAMES = {name: kind for kind, name in KINDS.items()}


def opened(path: Path) -> pq.ParquetFile:
    """Open a file, once another process has: damaged metadata of columns end the one that looks at them.

    Raises:
        UserError: it is no Parquet file, or damaged.
    """
    try:
        for _ in _library.ask(str(path.absolute())):
            pass
    except ProcessDied as died:
        raise unreadable(path, f"it ends the Parquet library, with {died}") from None
    return _opened(path)


def looked_at(path: str) -> Iterator[None]:
    """The other process: look at all metadata that are looked at later."""
    with _opened(Path(path)) as table:
        try:
            for group in range(table.metadata.num_row_groups):
                about = table.metadata.row_group(group)
                for i in range(about.num_columns):
                    column = about.column(i)
                    for name in ASKED:
                        getattr(column, name)
        except FAILURES as error:
            raise unreadable(Path(path), told(error)) from None
    yield from ()


def _opened(path: Path) -> pq.ParquetFile:
    try:
        table = pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True)
        table.schema_arrow.names  # noqa: B018 - names that are not UTF-8 are told here
        return table
    except FAILURES as error:
        raise unreadable(path, told(error)) from None


def ids_column(table: pq.ParquetFile, path: Path) -> int:
    """Which of the leaf columns holds the tokens.

    Raises:
        UserError: none does.
    """
    ids = ids_name(table.schema_arrow)
    ids_in(table.schema_arrow, ids, path)
    paths = [table.schema.column(i).path for i in range(len(table.schema.names))]
    return next(i for i, name in enumerate(paths) if name.split(".")[0] == ids)


class ParquetRows(TableRows):
    """A Parquet file of rows, a row group at a time.

    Args:
        path: the file.
        facts: of the sequence that it belongs to.
    """

    def __init__(self, path: Path, facts: Facts) -> None:
        self._table = opened(path)
        try:
            ids_column(self._table, path)
            counts = [self._table.metadata.row_group(g).num_rows for g in range(self._table.metadata.num_row_groups)]
            if min(counts, default=0) < 0 or sum(counts) != self._table.metadata.num_rows:
                raise unreadable(path, "its row groups differ in their rows from the whole")
        except BaseException:
            self._table.close()
            raise
        self.ids = ids_name(self._table.schema_arrow)
        super().__init__(path, facts, self._table.schema_arrow.names, counts)

    def decode(self, group: int, name: str) -> pa.Array:
        """Read a column of a row group, if its pages are as large as they may be."""
        try:
            with open(self.path, "rb") as stream:
                chunks = page_columns(stream, self.path.stat().st_size, self._table, group)
            promised = sum(int(c.decoded.sum()) for c in chunks if c.path.split(".")[0] == name)
            if promised > MOST_GROUP:
                raise ValueError(f"{name} expands to more than {MOST_GROUP >> 20:,} MB")
            table = self._table.read_row_group(group, columns=[name], use_threads=False)
            for batch in table.to_batches():
                validate(batch)
            return table.column(0).combine_chunks()
        except FAILURES as error:
            raise unreadable(self.path, f"{self.rows(group)} are damaged ({told(error)})") from None

    def segments_of(self, array: pa.Array, group: int) -> Segments | None:
        """Structs with the names of kinds and sources."""
        if array.type != SCHEMA.field("segments").type:
            return None
        found = array.flatten()
        kinds, sources = pa.array(list(_NAMES)), pa.array(self.facts.sources, pa.string())
        code = pc.index_in(found.field("kind"), value_set=kinds)
        source = pc.index_in(found.field("source"), value_set=sources)
        vouched = pa.scalar(bool(self.facts.manifest))
        unknown = pc.and_(vouched, pc.and_(pc.is_valid(found.field("source")), pc.is_null(source)))
        start, length = found.field("start"), found.field("length")
        if code.null_count or start.null_count or length.null_count or pc.any(unknown).as_py():
            raise unreadable(self.path, f"the segments of {self.rows(group)} lack what they are or come from")
        codes = np.array(list(_NAMES.values()), dtype=np.uint8)[code.to_numpy()]
        raw = {"start": start, "length": length}
        if not source.filter(pa.array(codes != PADDING)).null_count:
            raw |= {"offset": found.field("offset"), "source": source, "epoch": found.field("epoch")}
        columns = {name: pc.fill_null(values, 0).to_numpy().astype(SEGMENT[name]) for name, values in raw.items()}
        if "source" in raw:
            document = found.field("document")
            known = document.is_valid().to_numpy(zero_copy_only=False)
            row = pc.fill_null(document, 0).to_numpy().astype(SEGMENT["row"])
            columns["row"] = np.where(known | (codes == PADDING), row, ELSEWHERE)
        bounds = np.concatenate([[0], pc.list_value_length(array).to_numpy().cumsum()]).astype(np.int64)
        return Segments(bounds, columns | {"kind": codes})

    def close(self) -> None:
        """Let go of the file."""
        super().close()
        self._table.close()
