"""Arrow IPC: headrace's own shards under other names, and other people's files or streams with ``input_ids``.

The shards are linked, not copied: ``datasets``, polars and DuckDB read them as they are. With ``--rows-per-file``, and
from other files, rows are written anew.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.documents.readers.arrow import survey
from headrace.documents.readers.arrow_messages import BATCH, MessageError
from headrace.documents.readers.tables import FAILURES, told, validate
from headrace.flow.reuse import place
from headrace.flow.task import TaskContext
from headrace.formats.files import Facts, RowFile
from headrace.formats.format import Exported, Options, Part, ReadableFormat, Shape, blocks, files_below
from headrace.formats.table_rows import MOST_GROUP, TableRows, ids_in, ids_name, unreadable
from headrace.sequence.reader import SEGMENT, Segments, SequenceReader
from headrace.sequence.store import ArrowSequence, schema


class Arrow(ReadableFormat):
    """Arrow IPC, headrace's own columns."""

    name = "arrow"
    about = "Arrow IPC, headrace's own shards: linked, so that they take no room"
    keeps = frozenset(["loss", "segments", "provenance"])
    rows_per_file = None
    suffix = ".arrow"

    def parts(self, sequences: Sequence[Exported], options: Options) -> list[Part]:
        """A file a shard, or a file of those that are read, unless the user chose its rows."""
        if options.rows_per_file is not None:
            return super().parts(sequences, options)
        out = []
        for index, one in enumerate(sequences):
            ranges = ((start, stop) for start, stop in one.open().ranges() if start < stop)
            for number, (start, stop) in enumerate(ranges):
                out.append(Part(self.file(one.name, number), index, start, stop))
        return out

    def write(self, ctx: TaskContext, sequence: SequenceReader, part: Part) -> dict[str, Any]:
        """Link a shard, or write rows of one or several."""
        shard = _shard(sequence, part)
        with ctx.file(part.file) as out:
            if shard is not None:
                place(shard, out.path)
            else:
                columns = _columns(sequence)
                with pa.ipc.new_file(str(out.path), columns) as writer:
                    for start, stop in blocks(sequence, part):
                        writer.write_table(_rows(sequence, start, stop, columns))
        ctx.progress(rows=part.rows)
        return {}

    def made_with(self) -> dict[str, str]:
        """The library that wrote them."""
        return {"pyarrow": pa.__version__}

    def find(self, path: Path) -> list[Path]:
        """Files named .arrow."""
        return files_below(path, ".arrow")

    def shape(self, file: Path, seq_len: int | None) -> Shape:
        """Rows and L: the length of the lists, where their type tells, else of the first."""
        table = _table(file)
        name = ids_name(table.schema)
        kind = ids_in(table.schema, name, file)
        if pa.types.is_fixed_size_list(kind):
            width = kind.list_size
        else:
            rows = ArrowRows(file, Facts(0, np.dtype(np.uint32)), table)
            filled = [group for group, batch in enumerate(table.to_batches()) if batch.num_rows]
            first = rows.decode(filled[0], name)[0].as_py() if filled else None
            width = len(first or ()) if len(table) else (seq_len or 0) + 1
        if width < 2 and len(table):
            raise unreadable(file, "its rows have no two tokens")
        native = kind.value_type in (pa.uint16(), pa.uint32())
        return Shape(len(table), width - 1, np.dtype(kind.value_type.to_pandas_dtype()) if native else np.dtype("u4"))

    def open_file(self, file: Path, facts: Facts) -> RowFile:
        """Map a file."""
        return ArrowRows(file, facts, _table(file))


def _shard(sequence: SequenceReader, part: Part) -> Path | None:
    """The shard of headrace's own that has just these rows."""
    if not isinstance(sequence, ArrowSequence):
        return None
    offsets = sequence.artifact.row_offsets
    shard = int(offsets.searchsorted(part.start, side="right")) - 1
    whole = (part.start, part.stop) == (offsets[shard], offsets[shard + 1])
    return sequence.artifact.shard_path(shard) if whole else None


def _columns(sequence: SequenceReader) -> pa.Schema:
    """headrace's columns, without what nobody knows."""
    every = schema(sequence.seq_len, sequence.dtype)
    segments = sequence.segments_in(0, min(1, len(sequence)))
    if segments is None:
        return every.remove(every.get_field_index("segments"))
    return schema(sequence.seq_len, sequence.dtype, segments.columns)


def _rows(sequence: SequenceReader, start: int, stop: int, columns: pa.Schema) -> pa.Table:
    """Rows as one batch."""
    table = sequence.to_arrow(start, stop).combine_chunks()
    return pa.Table.from_arrays([_as(table.column(field.name), field.type) for field in columns], schema=columns)


def _as(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    """A column of a type that differs in names and in what may be null only."""
    [array] = column.chunks or [pa.array([], column.type)]
    return array if array.type == kind else array.cast(kind)


def _mapped(path: Path) -> Any:
    """A reader of a file or a stream, mapped: Arrow's own memory map reads a whole batch ahead."""
    with open(path, "rb") as file:
        data = pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return (pa.ipc.open_file if data[:6].to_pybytes() == b"ARROW1" else pa.ipc.open_stream)(pa.BufferReader(data))


def _table(path: Path) -> pa.Table:
    """All batches of a file, mapped: bytes are read when they are used. Nothing in them is checked yet.

    Raises:
        UserError: it is no Arrow file, or damaged, or expands too far.
    """
    try:
        with open(path, "rb") as stream:
            found, lost = survey(stream, path.stat().st_size)
        faults = [lost.error] if lost is not None else [message.fault for message in found if message.fault]
        if faults:
            raise MessageError(faults[0])
        if sum(message.unpacked for message in found) > MOST_GROUP:
            raise MessageError(f"its batches expand to more than {MOST_GROUP >> 20:,} MB")
        table = _mapped(path).read_all()
        if [batch.num_rows for batch in table.to_batches() if batch.num_rows] != [
            m.rows for m in found if m.kind == BATCH and m.rows
        ]:
            raise MessageError("its footer and its batches differ")
        table.schema.names  # noqa: B018 - names that are not UTF-8 are told here
        return table
    except FAILURES as error:
        raise unreadable(path, told(error)) from None


def _is_structs(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) and pa.types.is_struct(kind.value_type)


class ArrowRows(TableRows):
    """An Arrow file of rows, a batch at a time.

    Args:
        path: the file.
        facts: of the sequence that it belongs to.
        table: its batches.
    """

    def __init__(self, path: Path, facts: Facts, table: pa.Table) -> None:
        self.ids = ids_name(table.schema)
        ids_in(table.schema, self.ids, path)
        self._batches = table.to_batches()
        super().__init__(path, facts, table.schema.names, [batch.num_rows for batch in self._batches])

    def decode(self, group: int, name: str) -> pa.Array:
        """A column of a batch, with its offsets checked."""
        try:
            column = self._batches[group].select([name])
            validate(column)
            return column.column(0)
        except FAILURES as error:
            raise unreadable(self.path, f"{self.rows(group)} are damaged ({told(error)})") from None

    def loss(self, group: int) -> np.ndarray:
        """Our own is null in rows of which all tokens carry loss."""
        if self.ids != "tokens" or "loss" not in self.names:
            return super().loss(group)
        array = self.decode(group, "loss")
        out = np.ones((len(array), self.facts.seq_len + 1), dtype=bool)
        masked = array.is_valid().to_numpy(zero_copy_only=False)
        out[masked] = self.matrix(array.filter(pa.array(masked)), group, "loss")
        return out

    def segments_of(self, array: pa.Array, group: int) -> Segments | None:
        """Our own structs of numbers."""
        known = [field.name for field in array.type.value_type] if _is_structs(array.type) else []
        if array.type != schema(self.facts.seq_len, np.dtype(np.uint16), known).field("segments").type:
            return None
        values = array.flatten()
        columns = {name: values.field(name).to_numpy() for name in known}
        source = columns.get("source", np.zeros(0, SEGMENT["source"]))
        if self.facts.manifest and (source >= max(1, len(self.facts.sources))).any():
            raise unreadable(self.path, f"the segments of {self.rows(group)} come from unknown sources")
        sizes = np.diff(array.offsets.to_numpy()).astype(np.int64)
        return Segments(np.concatenate([[0], sizes.cumsum()]), columns)
