"""Rows of tokens in Parquet: headrace's own with their segments, and other people's with ``input_ids``.

The loss is in ``loss_mask``, or in ``labels`` that are -100 where there is none, or else everywhere.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.documents.readers.parquet_pages import columns as page_columns
from headrace.documents.readers.tables import FAILURES, told, validate
from headrace.errors import UserError
from headrace.formats.files import Facts, RowFile, put_ids
from headrace.sequence.reader import SEGMENT, Segments
from headrace.sequence.windows import KINDS

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
# A row group is read as a whole: 1 GB is 128 times what is written here.
MOST_GROUP = 1 << 30
RECENT = 8  # decoded columns of row groups that are kept in a process, 4 MB each where we wrote them
_NAMES = {name: kind for kind, name in KINDS.items()}


def opened(path: Path) -> pq.ParquetFile:
    """Open a file.

    Raises:
        UserError: it is no Parquet file, or damaged.
    """
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
    names = table.schema_arrow.names
    if "input_ids" not in names:
        raise unreadable(path, f"it has no column 'input_ids', only {', '.join(map(repr, names[:8]))}")
    kind = table.schema_arrow.field("input_ids").type
    if not (_is_list(kind) and pa.types.is_integer(kind.value_type)):
        raise unreadable(path, f"its input_ids are {kind}, not lists of integers")
    paths = [table.schema.column(i).path for i in range(len(table.schema.names))]
    return next(i for i, name in enumerate(paths) if name.split(".")[0] == "input_ids")


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


class ParquetRows(RowFile):
    """A Parquet file of rows.

    Args:
        path: the file.
        facts: of the sequence that it belongs to.
    """

    # Rows are read in order, so that a group decoded by any file makes room for the next.
    _recent: ClassVar[OrderedDict[tuple[ParquetRows, int, str], Any]] = OrderedDict()

    def __init__(self, path: Path, facts: Facts) -> None:
        self.path, self.facts, self._table = path, facts, opened(path)
        try:
            ids_column(self._table, path)
            counts = [self._table.metadata.row_group(g).num_rows for g in range(self._table.metadata.num_row_groups)]
            if min(counts, default=0) < 0 or sum(counts) != self._table.metadata.num_rows:
                raise unreadable(path, "its row groups differ in their rows from the whole")
        except BaseException:
            self._table.close()
            raise
        self._starts = np.cumsum([0, *counts], dtype=np.int64)
        self._names = self._table.schema_arrow.names

    def __len__(self) -> int:
        return int(self._starts[-1])

    def copy(self, start: int, stop: int, out: np.ndarray) -> None:
        """Copy tokens."""
        for group, a, b, part in self._spans(start, stop):
            where = f"{self.path}:{start + part.start}"
            put_ids(self._column(group, "input_ids")[a:b], out[part], self.facts.vocab_size, where)

    def targets(self, start: int, stop: int) -> np.ndarray:
        """From ``loss_mask``, or ``labels`` that are -100 where there is no loss, or else loss everywhere."""
        out = np.ones((stop - start, self.facts.seq_len), dtype=bool)
        for group, a, b, part in self._spans(start, stop):
            if "loss_mask" in self._names:
                out[part] = self._column(group, "loss_mask")[a:b, 1:] != 0
            elif "labels" in self._names:
                labels = self._column(group, "labels")[a:b, 1:]
                out[part] = labels != -100
                wrong = out[part] & (labels != self._column(group, "input_ids")[a:b, 1:])
                if wrong.any():
                    row = start + part.start + int(wrong.any(axis=1).argmax())
                    raise unreadable(self.path, f"row {row} has labels that are other tokens than its input_ids")
        return out

    def segments(self, start: int, stop: int) -> Segments | None:
        """The segments that headrace wrote; None in other people's files."""
        # Only what a manifest vouches for is taken for ours.
        if not self.facts.manifest or "segments" not in self._names:
            return None
        pieces = []
        for group, a, b, _ in self._spans(start, stop):
            found = self._column(group, "segments")
            low, high = found.bounds[a], found.bounds[b]
            columns = {name: values[low:high] for name, values in found.columns.items()}
            pieces.append(Segments(found.bounds[a : b + 1] - low, columns))
        if len(pieces) == 1:
            return pieces[0]
        bounds = np.concatenate([[0], *(np.diff(piece.bounds) for piece in pieces)]).cumsum()
        empty = {name: np.empty(0, SEGMENT[name]) for name in SEGMENT.names or ()}
        return Segments(
            bounds, {name: np.concatenate([e, *(p.columns[name] for p in pieces)]) for name, e in empty.items()}
        )

    def close(self) -> None:
        """Let go of the file."""
        self._table.close()
        for key in [key for key in self._recent if key[0] is self]:
            del self._recent[key]

    def _spans(self, start: int, stop: int) -> list[tuple[int, int, int, slice]]:
        """The row groups that hold rows: index, first row and last in it, and where they go among those asked for."""
        out, done = [], start
        while done < stop:
            group = int(self._starts.searchsorted(done, side="right")) - 1
            base, end = int(self._starts[group]), min(int(self._starts[group + 1]), stop)
            out.append((group, done - base, end - base, slice(done - start, end - start)))
            done = end
        return out

    def _column(self, group: int, name: str) -> Any:
        """A column of a row group, decoded: [n, L + 1], or its segments."""
        key = (self, group, name)
        if key not in self._recent:
            array = self._read(group, name)
            made = self._segments_of(array, group) if name == "segments" else self._matrix(array, group, name)
            while len(self._recent) >= RECENT:
                self._recent.popitem(last=False)
            self._recent[key] = made
        self._recent.move_to_end(key)
        return self._recent[key]

    def _read(self, group: int, name: str) -> pa.Array:
        rows = int(self._starts[group + 1] - self._starts[group])
        try:
            with open(self.path, "rb") as stream:
                chunks = page_columns(stream, self.path.stat().st_size, self._table, group)
            promised = sum(int(c.decoded.sum()) for c in chunks if c.path.split(".")[0] == name)
            if promised > MOST_GROUP:
                raise ValueError(f"{name} expands to more than {MOST_GROUP >> 20:,} MB")
            table = self._table.read_row_group(group, columns=[name], use_threads=False)
            for batch in table.to_batches():
                validate(batch)
            array = table.column(0).combine_chunks()
        except FAILURES as error:
            raise unreadable(self.path, f"{self._of(group)} are damaged ({told(error)})") from None
        if len(array) != rows or array.null_count:
            raise unreadable(self.path, f"{self._of(group)} have {len(array) - array.null_count:,} {name}")
        return array

    def _of(self, group: int) -> str:
        return f"rows {self._starts[group]:,} to {self._starts[group + 1]:,}"

    def _matrix(self, array: pa.Array, group: int, name: str) -> np.ndarray:
        width = self.facts.seq_len + 1
        sizes = pc.list_value_length(array).to_numpy(zero_copy_only=False) if _is_list(array.type) else None
        if sizes is None or (sizes != width).any():
            row = int(self._starts[group]) + (0 if sizes is None else int((sizes != width).argmax()))
            raise unreadable(self.path, f"row {row} has no list of {width:,} {name}")
        values = array.flatten()
        if values.null_count or not (pa.types.is_integer(values.type) or pa.types.is_boolean(values.type)):
            raise unreadable(self.path, f"the {name} of {self._of(group)} are not all integers")
        return values.to_numpy(zero_copy_only=False).reshape(len(array), width)

    def _segments_of(self, array: pa.Array, group: int) -> Segments:
        if array.type != SCHEMA.field("segments").type:
            raise unreadable(self.path, f"the segments of {self._of(group)} are not as headrace writes them")
        found = array.flatten()
        kinds, sources = pa.array(list(_NAMES)), pa.array(self.facts.sources, pa.string())
        code = pc.index_in(found.field("kind"), value_set=kinds)
        source = pc.index_in(found.field("source"), value_set=sources)
        unknown = pc.and_(pc.is_valid(found.field("source")), pc.is_null(source))
        start, length = found.field("start"), found.field("length")
        if code.null_count or start.null_count or length.null_count or pc.any(unknown).as_py():
            raise unreadable(self.path, f"the segments of {self._of(group)} lack what they are or come from")
        codes = np.array(list(_NAMES.values()), dtype=np.uint8)[code.to_numpy()]
        raw = {
            "start": start,
            "length": length,
            "row": found.field("document"),
            "offset": found.field("offset"),
            "source": source,
            "epoch": found.field("epoch"),
        }
        columns = {name: pc.fill_null(values, 0).to_numpy().astype(SEGMENT[name]) for name, values in raw.items()}
        end = columns["start"].astype(np.int64) + columns["length"]
        if len(end) and (
            columns["start"].min() < 0 or columns["length"].min() < 0 or end.max() > self.facts.seq_len + 1
        ):
            raise unreadable(self.path, f"the segments of {self._of(group)} lie outside their rows")
        bounds = np.concatenate([[0], pc.list_value_length(array).to_numpy().cumsum()]).astype(np.int64)
        return Segments(bounds, columns | {"kind": codes})


def unreadable(path: Path, why: str) -> UserError:
    """The error about a file."""
    return UserError(f"This Parquet file is not read: {why}.", str(path), "Export or download it again.")
