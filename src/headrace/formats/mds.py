"""MosaicML Streaming's MDS: shards of samples that ``StreamingDataset`` reads, and llm-foundry with it.

A sample has ``tokens`` (L + 1, the column that llm-foundry reads), ``loss_mask`` and ``segments``. (streaming 0.13,
``base/format/mds/writer.py``.)
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

from headrace.flow.task import TaskContext
from headrace.formats.format import Exported, Part, SequenceFormat
from headrace.formats.samples import by_sequence, rows_in, sample_blocks, write_index, write_indexed
from headrace.sequence.reader import SequenceReader


class MDS(SequenceFormat):
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
