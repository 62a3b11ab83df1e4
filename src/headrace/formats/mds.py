"""MosaicML Streaming's MDS: shards of samples that ``StreamingDataset`` reads, and llm-foundry with it.

A sample has ``tokens`` (L + 1, the column that llm-foundry reads), ``loss_mask`` and ``segments``. (streaming 0.13,
``base/format/mds/writer.py``.)
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from headrace.flow.task import TaskContext
from headrace.formats.files import Facts, RowFile
from headrace.formats.format import Exported, Part, ReadableFormat, Shape, files_below
from headrace.formats.sample_file import IndexedFile, StoredRow
from headrace.formats.samples import by_sequence, rows_in, sample_blocks, write_index, write_indexed
from headrace.sequence.reader import SequenceReader


class MDS(ReadableFormat):
    """A folder a stage: ``shard.00000.mds`` and so on, and ``index.json``."""

    name = "mds"
    about = "MosaicML Streaming, as llm-foundry reads it"
    keeps = frozenset(["loss", "segments", "provenance"])
    rows_per_file = None
    suffix = ".mds"

    def rows_in_file(self, sequence: SequenceReader) -> int:
        """As many as the format's own writer puts in one."""
        return rows_in(sequence)

    def file(self, stage: str, number: int) -> str:
        """Named as by the format's own writer."""
        return f"{stage}/shard.{number:05d}.mds"

    def write(self, ctx: TaskContext, sequence: SequenceReader, part: Part) -> dict[str, Any]:
        """Write a shard."""
        encoded = (
            [struct.pack("<I", len(s.segments)) + b"".join((s.loss, s.segments, s.tokens)) for s in samples]
            for samples in sample_blocks(ctx, sequence, part)
        )
        with ctx.file(part.file) as out:
            write_indexed(out.path, part, json.dumps(_config(sequence), sort_keys=True).encode(), encoded)
        return {}

    def close(
        self, ctx: TaskContext, sequences: Sequence[Exported], parts: Sequence[Part], results: Sequence[dict[str, Any]]
    ) -> None:
        """Write the indices."""
        for one, written in by_sequence(ctx, sequences, parts):
            config = _config(one.open())
            shards = [
                {**config, "samples": part.rows, "raw_data": _described(part, entry), "zip_data": None}
                for part, entry in written
            ]
            write_index(ctx, one.name, {"version": 2, "shards": shards})

    def find(self, path: Path) -> list[Path]:
        """Files named .mds."""
        return files_below(path, ".mds")

    def shape(self, file: Path, seq_len: int | None) -> Shape:
        """As the shard says."""
        shard = Shard(file, Facts(0, np.dtype(np.uint32)))
        try:
            return shard.shape()
        finally:
            shard.close()

    def open_file(self, file: Path, facts: Facts) -> RowFile:
        """Open a shard."""
        return Shard(file, facts)


class Shard(IndexedFile):
    """A shard of rows of one length: a column ``tokens``, and perhaps ``loss_mask`` and ``segments``."""

    def __init__(self, path: Path, facts: Facts) -> None:
        super().__init__(path, facts)
        try:
            self._names, self._sizes, self._dtype = self._columns()
        except BaseException:
            self.close()
            raise

    def _columns(self) -> tuple[list[str], list[int | None], np.dtype]:
        try:
            told = orjson.loads(self.between)
            names, sizes = told["column_names"], told["column_sizes"]
            encodings = dict(zip(names, told["column_encodings"], strict=True))
            found = re.fullmatch(r"ndarray:(uint(?:8|16|32|64)|int(?:16|32|64)):([0-9]+)", encodings["tokens"])
            if found is None or len(names) != len(sizes):
                raise ValueError
            if any(size is not None and (not isinstance(size, int) or size < 0) for size in sizes):
                raise ValueError
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            raise self.wrong("it has no column 'tokens' of arrays of one length") from None
        return names, sizes, np.dtype(found[1])

    def stored(self, row: int) -> StoredRow:
        """A row."""
        told = dict(zip(self._names, self.fields(row, self._sizes), strict=True))
        tokens = self.values(row, told["tokens"], self._dtype)
        loss = self.values(row, told["loss_mask"], np.dtype(np.uint8)) if "loss_mask" in told else None
        return StoredRow(tokens, loss, bytes(told.get("segments", b"null")))


def _described(part: Part, entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "basename": part.file.rpartition("/")[2],
        "bytes": entry["bytes"],
        "hashes": {"xxh3_128": entry["digest"]},
    }


def _config(sequence: SequenceReader) -> dict[str, Any]:
    """What a shard says of itself. Columns are in alphabetical order, as the reader wants them."""
    width = sequence.seq_len + 1
    return {
        "version": 2,
        "format": "mds",
        "compression": None,
        "hashes": ["xxh3_128"],
        "size_limit": None,
        "column_names": ["loss_mask", "segments", "tokens"],
        # Segments as text rather than "json": lists of unequal length would break a DataLoader's default collation.
        "column_encodings": [f"ndarray:uint8:{width}", "str", f"ndarray:{sequence.dtype}:{width}"],
        "column_sizes": [width, None, width * sequence.dtype.itemsize],
    }
