"""Parquet as hubs show it and ``datasets`` loads it, without code: a config a stage, held-out rows as a split.

A row has ``input_ids`` (L + 1 tokens), ``loss_mask`` (whether each carries loss as a target; the first never does),
``text`` (the tokens decoded, if their tokenizer is known) and ``segments`` (where documents begin, and which these are,
if that is known).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.errors import UserError
from headrace.flow.artifact import Artifact
from headrace.flow.task import TaskContext
from headrace.formats.documents import document_configs, document_rows, write_readme
from headrace.formats.files import Facts, RowFile
from headrace.formats.format import Exported, Part, ReadableFormat, Shape, blocks, files_below, loss_mask
from headrace.formats.origins import Origins
from headrace.formats.origins import write as write_origins
from headrace.formats.parquet_documents import COMPRESSION, ParquetDocuments
from headrace.formats.parquet_rows import SCHEMA, SEGMENT_FIELDS, ParquetRows, ids_column, opened
from headrace.formats.table_rows import unreadable
from headrace.recipe.schema import HELD_OUT
from headrace.report.attribution import ATTRIBUTION
from headrace.sequence.provenance import beside
from headrace.sequence.reader import ELSEWHERE, Segments, SequenceReader, require_known
from headrace.sequence.store import ArrowSequence
from headrace.sequence.windows import KINDS, PADDING
from headrace.tokens.engine import Encoded
from headrace.tokens.load import file_decoder, open_decoder
from headrace.tokens.table_engine import Decoder

# A file of 100 M tokens is 200 to 400 MB with its text. Hubs advise at most 500 MB a file, and row groups of at most
# 300 MB uncompressed for the viewer; a block of rows is about 10.
FILE_TOKENS = 100 << 20


class Hub(ReadableFormat):
    """Parquet with a README.md."""

    name = "hub"
    VERSION = 2
    about = "Parquet and a data card, as hubs show and `datasets` loads: ids, loss mask, text, provenance"
    keeps = frozenset(["loss", "segments", "provenance", "text"])
    rows_per_file = None
    suffix = ".parquet"
    document_format = ParquetDocuments()

    def check(self, sequence: SequenceReader) -> None:
        """Refuse a sequence whose documents or tokenizer are gone."""
        _made_from(sequence, "documents"), _made_from(sequence, "tokenizer")

    def rows_in_file(self, sequence: SequenceReader) -> int:
        """As many as make :data:`FILE_TOKENS`."""
        return max(1, FILE_TOKENS // (sequence.seq_len + 1))

    def file(self, stage: str, number: int) -> str:
        """Named for its split, as ``datasets`` likes it."""
        return f"{stage}/{_split(stage)}-{number:05d}.parquet"

    def preparation(self, sequences: Sequence[Exported]) -> list[dict[str, Any]]:
        """The origins of the documents of every sequence, a shard at a time."""
        out, seen = [], set()
        for index, one in enumerate(sequences):
            documents = _made_from(one.open(), "documents")
            if documents is not None and documents.path not in seen:
                out += [{"sequence": index, "shard": k, "size": s["rows"]} for k, s in enumerate(documents.shards)]
                seen.add(documents.path)
        return out

    def prepare(self, ctx: TaskContext, sequences: Sequence[Exported], spec: dict[str, Any]) -> dict[str, Any]:
        """Write the origins of a shard's documents."""
        one = sequences[spec["sequence"]]
        write_origins(ctx, beside(one.open(), "documents"), spec["shard"], one.licenses())
        return {}

    def write(self, ctx: TaskContext, sequence: SequenceReader, part: Part) -> dict[str, Any]:
        """Write rows, a block as a row group."""
        decoder, documents = _decoder(_exported(ctx, part)), _made_from(sequence, "documents")
        origins = None if documents is None else Origins(ctx, documents)
        schema = pa.schema([field for field in SCHEMA if field.name in _columns(_exported(ctx, part))])
        with (
            ctx.file(part.file) as out,
            pq.ParquetWriter(out.path, schema, write_page_index=True, **COMPRESSION) as file,
        ):
            for start, stop in blocks(sequence, part):
                table = _table(sequence, start, stop, decoder, origins).cast(schema)
                file.write_table(table, row_group_size=stop - start)
                ctx.progress(rows=stop - start, bytes=table.nbytes)
        return {}

    def close(
        self, ctx: TaskContext, sequences: Sequence[Exported], parts: Sequence[Part], results: Sequence[dict[str, Any]]
    ) -> None:
        """Write README.md."""
        rows = [sum(part.rows for part in parts if part.sequence == i) for i in range(len(sequences))]
        there = {one.name: n for one, n in zip(sequences, rows, strict=True) if n}
        configs: dict[str, dict[str, str]] = {}
        counts: dict[str, dict[str, int]] = {}
        for name in [name for name in there if name != HELD_OUT] or list(there):
            # Every stage is validated on the same rows.
            splits = {_split(part): part for part in (name, HELD_OUT) if part in there}
            configs[name] = {split: f"{part}/{split}-*" for split, part in splits.items()}
            counts[name] = {split: there[part] for split, part in splits.items()}
        facts = [
            {"name": one.name, "seq_len": s.seq_len, "vocab_size": s.vocab_size, "columns": _columns(one)}
            | {"tokenizer": s.manifest.get("tokenizer") or (one.tokenizer or (None, None))[1]}
            for one in sequences
            for s in [one.open()]
        ]
        write_readme(ctx, configs | document_configs(ctx), counts | document_rows(ctx), facts, {})

    def made_with(self) -> dict[str, str]:
        """The library that wrote the files: its version is in them."""
        return {"pyarrow": pa.__version__}

    def find(self, path: Path) -> list[Path]:
        """Files named .parquet, except the list of documents beside them."""
        return [file for file in files_below(path, ".parquet") if file.name != ATTRIBUTION]

    def shape(self, file: Path, seq_len: int | None) -> Shape:
        """Rows and L, by the number of tokens that the footer tells; the rows themselves are checked when read."""
        with opened(file) as table:
            sizes = set()
            for group in range(table.metadata.num_row_groups):
                about = table.metadata.row_group(group)
                if about.num_rows:
                    sizes.add(about.column(ids_column(table, file)).num_values / about.num_rows)
            if not sizes:
                sizes.add((seq_len or 0) + 1)
            elif len(sizes) != 1 or min(sizes) < 2 or min(sizes) % 1:
                raise unreadable(file, "its rows are not all of one length, of at least two tokens")
            return Shape(table.metadata.num_rows, int(sizes.pop()) - 1, np.dtype(np.uint32))

    def open_file(self, file: Path, facts: Facts) -> RowFile:
        """Open a file."""
        return ParquetRows(file, facts)


def _split(stage: str) -> str:
    return "validation" if stage == HELD_OUT else "train"


def _made_from(sequence: SequenceReader, role: str) -> Artifact | None:
    """The artifact of a run that a sequence was built from; None for rows of other files, which come without.

    Raises:
        UserError: it is gone or damaged.
    """
    known = isinstance(sequence, ArrowSequence) and role in sequence.artifact.manifest.inputs
    return beside(sequence, role) if known else None


def _exported(ctx: TaskContext, part: Part) -> Exported:
    step: Any = ctx.step  # a SequenceExport, which knows this format
    exported: Exported = step.sequences[part.sequence]
    return exported


def _decoder(one: Exported) -> Decoder | None:
    """What spells the rows of a sequence."""
    tokenizer = _made_from(one.open(), "tokenizer")
    if tokenizer is not None:
        return open_decoder(tokenizer)
    return None if one.tokenizer is None else _file_decoder(*one.tokenizer)


@lru_cache(maxsize=1)
def _file_decoder(path: str, fingerprint: str) -> Decoder:
    decoder, found = file_decoder(Path(path))
    if found != fingerprint:
        raise UserError("The tokenizer has changed since the export began.", path, "Run the export again.")
    return decoder


def _columns(one: Exported) -> set[str]:
    """The columns that are known."""
    sequence = one.open()
    text = one.tokenizer is not None or _made_from(sequence, "tokenizer") is not None
    segments = sequence.segments_in(0, min(1, len(sequence))) is not None
    return {"input_ids", "loss_mask"} | ({"text"} if text else set()) | ({"segments"} if segments else set())


def _table(
    sequence: SequenceReader, start: int, stop: int, decoder: Decoder | None, origins: Origins | None
) -> pa.Table:
    tokens, segments = sequence.rows(start, stop), sequence.segments_in(start, stop)
    n, width = tokens.shape
    offsets = pa.array(np.arange(n + 1, dtype=np.int32) * width)
    mask = loss_mask(sequence, start, stop, segments)
    flat = np.ascontiguousarray(tokens).reshape(-1)
    columns: dict[str, pa.Array] = {
        "input_ids": pa.ListArray.from_arrays(offsets, pa.array(flat.astype(np.int32))),
        "loss_mask": pa.ListArray.from_arrays(offsets, pa.array(mask.reshape(-1))),
    }
    if decoder is not None:
        require_known(tokens, decoder.vocab_size, sequence.path, start)
        spelled = decoder.decode_batch(Encoded(flat, np.arange(n + 1, dtype=np.int64) * width))
        texts = [spelled.data[a:b].tobytes().decode("utf-8", "replace") for a, b in _pairs(spelled.offsets)]
        columns["text"] = pa.array(texts, pa.large_string())
    if segments is not None:
        columns["segments"] = _described(sequence, segments, origins)
    return pa.table(columns)


def _pairs(offsets: np.ndarray) -> list[tuple[int, int]]:
    return list(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True))


def _described(sequence: SequenceReader, segments: Segments, origins: Origins | None) -> pa.Array:
    """The segments as a list of structs; of padding only place, length and kind are known."""
    first, last = int(segments.bounds[0]), int(segments.bounds[-1])
    column = {name: values[first:last] for name, values in segments.columns.items()}
    padding = column["kind"] == PADDING
    codes = pc.index_in(pa.array(column["kind"]), value_set=pa.array(list(KINDS), pa.uint8()))
    found = {
        "start": pa.array(column["start"]),
        "length": pa.array(column["length"]),
        "kind": pa.array(list(KINDS.values())).take(codes),
    }
    if "row" in column:
        named = pa.array(sequence.sources, pa.string())
        elsewhere = padding | (column["row"] == ELSEWHERE)
        found |= {
            "source": named.take(pa.array(column["source"], mask=padding)),
            "epoch": pa.array(column["epoch"], mask=padding),
            "offset": pa.array(column["offset"], mask=padding),
            "document": pa.array(column["row"], mask=elsewhere),
        }
        if origins is not None:
            real = np.flatnonzero(~elsewhere)
            place = np.zeros(len(padding), dtype=np.int64)
            place[real] = np.arange(len(real))
            facts = origins.of(column["row"][real]).take(pa.array(place, mask=elsewhere))
            found |= {name: facts.column(name).combine_chunks() for name in facts.column_names}
    nothing = pa.nulls(len(padding))
    parts = [found.get(field.name, nothing).cast(field.type) for field in SEGMENT_FIELDS]
    struct = pa.StructArray.from_arrays(parts, fields=list(SEGMENT_FIELDS))
    return pa.ListArray.from_arrays(pa.array((segments.bounds - first).astype(np.int32)), struct)
