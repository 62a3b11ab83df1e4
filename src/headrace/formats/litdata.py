"""litdata's chunks, which ``litdata.StreamingDataset`` reads: rows with all that belongs to them, or tokens alone as
LitGPT's pre-training takes them. (litdata 0.2.76, ``streaming/writer.py``, ``streaming/item_loader.py``.)
"""

from __future__ import annotations

import json
import re
import struct
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from headrace.flow.task import TaskContext
from headrace.formats.files import Facts, RowFile
from headrace.formats.format import Exported, Part, ReadableFormat, Shape, files_below
from headrace.formats.placed import unreadable
from headrace.formats.sample_file import IndexedFile, StoredRow, index_beside
from headrace.formats.samples import by_sequence, rows_in, sample_blocks, token_blocks, write_index, write_indexed
from headrace.sequence.reader import SequenceReader

# Where types stand in litdata's list of them, which is never reordered (litdata/constants.py, _NUMPY_SCTYPES).
TYPES = {np.dtype(f"uint{8 << i}"): 4 + i for i in range(4)} | {np.dtype(bool): 13}


_CHUNK = re.compile(r"chunk-([0-9]+)-([0-9]+)\.bin")


class Chunks(ReadableFormat):
    """A folder a stage: ``chunk-0-0.bin`` and so on, and ``index.json``."""

    rows_per_file = None
    suffix = ".bin"
    loader: ClassVar[str]
    fields: ClassVar[tuple[str, ...] | None]

    def file(self, stage: str, number: int) -> str:
        """Named as by the format's own writer: by its worker, of which there seems to be one, and its number."""
        return f"{stage}/chunk-0-{number}.bin"

    def rows_in_file(self, sequence: SequenceReader) -> int:
        """As many as make 64 MB."""
        return rows_in(sequence, loss=self.fields is not None)

    @abstractmethod
    def items(self, ctx: TaskContext, sequence: SequenceReader, part: Part) -> Iterator[Sequence[bytes | memoryview]]:
        """The items of a part, in lists."""

    @abstractmethod
    def types(self, sequence: SequenceReader) -> list[str]:
        """How the values of an item are to be decoded."""

    def write(self, ctx: TaskContext, sequence: SequenceReader, part: Part) -> dict[str, Any]:
        """Write a chunk."""
        with ctx.file(part.file) as out:
            write_indexed(out.path, part, b"", self.items(ctx, sequence, part))
        return {}

    def close(
        self, ctx: TaskContext, sequences: Sequence[Exported], parts: Sequence[Part], results: Sequence[dict[str, Any]]
    ) -> None:
        """Write the indices."""
        for one, written in by_sequence(ctx, sequences, parts):
            sequence = one.open()
            width = sequence.seq_len + 1
            chunks = [
                {
                    "filename": part.file.rpartition("/")[2],
                    "chunk_bytes": entry["bytes"],
                    "chunk_size": part.rows,
                    "dim": part.rows * width if self.fields is None else None,
                }
                for part, entry in written
            ]
            config = {
                "chunk_bytes": None,
                "chunk_size": max((part.rows for part, _ in written), default=0),
                "compression": None,
                "data_format": self.types(sequence),
                "data_spec": _spec(self.fields),
                "encryption": None,
                "item_loader": self.loader,
            }
            # Readers keep what they downloaded under this name: a time in litdata's own files, but of any form.
            write_index(ctx, one.name, {"chunks": chunks, "config": config, "updated_at": one.identity})

    def find(self, path: Path) -> list[Path]:
        """Files named as litdata's chunks, by their numbers, beside an index."""
        found = [(file, _CHUNK.fullmatch(file.name)) for file in files_below(path, ".bin")]
        chunks = [(file.parent, int(name[1]), int(name[2]), file) for file, name in found if name]
        return [file for *_, file in sorted(chunks) if _index(file).is_file()]

    def beside(self, file: Path) -> tuple[Path, ...]:
        """The index."""
        return (_index(file),)

    def shape(self, file: Path, seq_len: int | None) -> Shape:
        """As its first row and the index say."""
        chunk = Chunk(file, Facts(0, np.dtype(np.uint32)))
        try:
            return chunk.shape()
        finally:
            chunk.close()

    def open_file(self, file: Path, facts: Facts) -> RowFile:
        """Open a chunk."""
        return Chunk(file, facts)


class Chunk(IndexedFile):
    """A chunk of rows as :class:`LitData` or :class:`LitDataTokens` writes them; the index tells which."""

    def __init__(self, path: Path, facts: Facts) -> None:
        super().__init__(path, facts)
        try:
            self._dtype, self._whole = _types(path)
        except BaseException:
            self.close()
            raise

    def stored(self, row: int) -> StoredRow:
        """A row."""
        if not self._whole:
            return StoredRow(self.values(row, self.item(row), self._dtype))
        tokens, loss, segments = self.fields(row, [None, None, None])
        mask = self.values(row, loss, np.dtype(np.uint8))
        return StoredRow(self.values(row, tokens, self._dtype), mask, bytes(segments))


def _index(file: Path) -> Path:
    return file.with_name("index.json")


def _types(file: Path) -> tuple[np.dtype, bool]:
    """The type of tokens, and whether rows are more than these."""
    config = index_beside(file).get("config")
    told = config.get("data_format") if isinstance(config, dict) else None
    types = {f"no_header_numpy:{number}": dtype for dtype, number in TYPES.items() if dtype.kind == "u"}
    more = [_array(np.dtype(bool)), "str"]
    if not isinstance(told, list) or told[:1] == [] or told[0] not in types or told[1:] not in ([], more):
        raise unreadable(_index(file), "rows of this shape are not known")
    return types[told[0]], told[1:] == more


class LitData(Chunks):
    """Rows as dictionaries."""

    name = "litdata"
    about = "litdata, rows as dictionaries of tokens, loss mask and segments"
    keeps = frozenset(["loss", "segments", "provenance"])
    loader = "PyTreeLoader"
    fields = ("input_ids", "loss_mask", "segments")

    def items(self, ctx: TaskContext, sequence: SequenceReader, part: Part) -> Iterator[Sequence[bytes | memoryview]]:
        """The sizes of the fields, then the fields."""
        for samples in sample_blocks(ctx, sequence, part):
            fields = ((s.tokens, s.loss, s.segments) for s in samples)
            yield [b"".join((struct.pack("<3I", *map(len, values)), *values)) for values in fields]

    def types(self, sequence: SequenceReader) -> list[str]:
        """Arrays, and text for the segments: lists of unequal length would break a DataLoader's default collation."""
        return [_array(sequence.dtype), _array(np.dtype(bool)), "str"]


class LitDataTokens(Chunks):
    """Tokens alone."""

    name = "litdata-tokens"
    about = "litdata, tokens alone for TokensLoader, as LitGPT's pre-training reads them"
    keeps = frozenset()
    loader = "TokensLoader"
    fields = None

    def items(self, ctx: TaskContext, sequence: SequenceReader, part: Part) -> Iterator[Sequence[bytes | memoryview]]:
        """The tokens."""
        return token_blocks(ctx, sequence, part)

    def types(self, sequence: SequenceReader) -> list[str]:
        """One array."""
        return [_array(sequence.dtype)]


def _array(dtype: np.dtype) -> str:
    return f"no_header_numpy:{TYPES[dtype]}"


def _spec(fields: Sequence[str] | None) -> str:
    """The shape of an item as torch's pytrees write it down: a dictionary, or a value alone."""
    leaf: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
    if fields is None:
        return json.dumps([1, leaf])
    children = [leaf for _ in fields]
    return json.dumps([1, {"type": "builtins.dict", "context": json.dumps(fields), "children_spec": children}])
