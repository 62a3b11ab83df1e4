"""Encode: documents that a stage changes (fill-in-the-middle, conversations), from their text.

One task per shard of the token store. The tokens are stored separately until they are placed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.documents.store import read_batches
from headrace.flow.task import TaskContext
from headrace.sequence import weigh
from headrace.sequence.corpus import ShardDocuments, hold
from headrace.sequence.encoded import EncodedWriter, writing_encoded
from headrace.sequence.epochs import ResolvedSource
from headrace.sequence.fim import PLAIN, rearrange
from headrace.sequence.parameters import SequenceParameters
from headrace.sequence.sampling import End, changes, in_slice, kinds, sampled
from headrace.tokens.engine import Engine, Texts

_TEXT_BYTES = 8 << 20  # text decoded at a time: one row group of documents
_MEMORY_PER_BYTE = 12  # per byte of a documents shard on disk; measured for the token store, which does the same work


def plan(sequence: SequenceParameters, ctx: TaskContext) -> list[dict[str, Any]]:
    """One task per shard; what cannot be resolved is reported before any work is done."""
    bounds: dict[str, list[int]] = {}
    for take in sequence.resolved(ctx).sources:
        if take.wanted is not None and changes(sequence, take.name) and take.name not in sequence.chat_sources:
            # Fill-in-the-middle only adds sentinels, so what is enough before it is enough after.
            bounds[take.name] = list(weigh.end_of(sequence, ctx, "weigh", take))
    sizes = [entry["bytes"] for entry in ctx.input("documents").shards]
    return [{"shard": shard, "bounds": bounds, "size": size} for shard, size in enumerate(sizes)]


def memory(spec: dict[str, Any]) -> int:
    """Memory for a shard's ids, and for tokenizing its text."""
    return (32 << 20) + _MEMORY_PER_BYTE * int(spec["size"])


@dataclass
class Part:
    """The documents of a shard that one copy of one source may use.

    Attributes:
        take: the source.
        copy: the copy's number; a conversation is the same in every copy, and is encoded as copy 0.
        at: int64[n], indices in the shard, ascending.
        kind: uint8[n], how each is transformed.
        cuts: float64[n, 2] for fill-in-the-middle, else None.
        lengths: int64[n], tokens: those of the store until the document is encoded.
    """

    take: ResolvedSource
    copy: int
    at: np.ndarray
    kind: np.ndarray
    cuts: np.ndarray | None
    lengths: np.ndarray


def work(sequence: SequenceParameters, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
    """Encode the changed documents of a shard."""
    held = hold(sequence, ctx, spec["shard"])
    bounds = {name: End(*end) for name, end in spec["bounds"].items()}
    takes = [take for take in sequence.resolved(ctx).sources if changes(sequence, take.name)]
    parts = [part for take in takes for part in _parts(sequence, held, take, bounds)]
    if any((part.kind != PLAIN).any() for part in parts):
        with writing_encoded(ctx, np.dtype(ctx.input("tokens").manifest.extra["dtype"])) as writer:
            for batch, first in text_batches(ctx, spec["shard"]):
                for part in parts:
                    encode(sequence, ctx, batch, first, held, part, writer)
    totals: dict[str, list[int]] = {take.name: [] for take in takes if take.wanted is not None}
    for part in parts:
        if part.take.wanted is not None:
            written = weigh.write(sequence, ctx, held, part.take, part.copy, part.at, part.lengths)
            totals[part.take.name].append(written)
    ctx.progress(rows=len(held.shard.rows))
    return {"totals": totals}


def _parts(
    sequence: SequenceParameters, held: ShardDocuments, take: ResolvedSource, bounds: dict[str, End]
) -> Iterator[Part]:
    """The copies of a source to encode: for weighted sources, all that may be needed."""
    if take.name not in sequence.chat_sources:
        copies = sampled(sequence, held, take, bounds)
    elif take.wanted is not None:
        copies = [(0, in_slice(sequence, held, take))]
    else:
        copies = sampled(sequence, held, take, bounds)[:1]  # the first copy contains the documents of all copies
    for copy, at in copies:
        lengths = np.diff(held.shard.offsets)[at]
        yield Part(take, copy, at, *kinds(sequence, held, take, at, copy), lengths)


def text_batches(ctx: TaskContext, shard: int) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Batches of text and turns of a documents shard, each with the global row number of its first document."""
    documents = ctx.input("documents")
    first = int(documents.row_offsets[shard])
    # The retry of a shard that killed its worker processes one document at a time, to find the one responsible.
    limit = 1 if ctx.careful else _TEXT_BYTES
    for batch in read_batches(documents.shard_path(shard), ["text", "turns"], limit):
        ctx.at(f"documents row {first} and the {batch.num_rows - 1} after it")
        yield batch, first
        first += batch.num_rows


def encode(
    sequence: SequenceParameters,
    ctx: TaskContext,
    batch: pa.RecordBatch,
    first: int,
    held: ShardDocuments,
    part: Part,
    writer: EncodedWriter,
) -> None:
    """Encode the documents of a batch of text that a copy changes, and record their lengths."""
    rows = held.shard.rows
    low, high = np.searchsorted(rows, np.array([first, first + batch.num_rows], dtype=np.uint64))
    start, stop = np.searchsorted(part.at, [low, high])
    mine = start + np.flatnonzero(part.kind[start:stop] != PLAIN)
    if not len(mine):
        return
    engine = sequence.engine(ctx)
    inside = rows[part.at[mine]] - np.uint64(first)
    if part.take.name in sequence.chat_sources:
        part.lengths[mine] = encode_chats(sequence, batch, inside, first, engine, writer)
        return
    assert part.cuts is not None
    texts = Texts.of(batch.column("text").take(pa.array(inside.astype(np.int64))))
    out = rearrange(texts, part.kind[mine], part.cuts[mine], engine, first=True)
    writer.add(rows[part.at[mine]], part.copy, out.tokens, out.offsets)
    part.lengths[mine] = np.diff(out.offsets)


def encode_chats(
    sequence: SequenceParameters,
    batch: pa.RecordBatch,
    inside: np.ndarray,
    first: int,
    engine: Engine,
    writer: EncodedWriter,
) -> np.ndarray:
    """Render and encode the conversations of a batch; returns int64[n], their numbers of tokens."""
    from headrace.sequence.chat import transform, turns_of

    assert sequence.section.chat is not None
    where = pa.array(inside.astype(np.int64))
    turns = [turns_of(column) for column in batch.column("turns").take(where).to_pylist()]
    chats = transform(Texts.of(batch.column("text").take(where)), turns, engine, sequence.section.chat)
    writer.add(inside + np.uint64(first), 0, chats.tokens, chats.offsets, chats.loss, chats.end_loss)
    return np.diff(chats.offsets)
