"""Encode: documents that a stage changes (fill-in-the-middle, conversations, files with headers), from their text.

One task per shard of the token store. The tokens are stored separately until they are placed.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from headrace.documents.readers.base import EXCERPT
from headrace.documents.store import read_batches
from headrace.errors import UserError
from headrace.flow.notices import Notice
from headrace.flow.slices import gather
from headrace.flow.task import TaskContext
from headrace.recipe.stages import BUILT_IN
from headrace.sequence import weigh
from headrace.sequence.corpus import ShardDocuments, hold
from headrace.sequence.encoded import EncodedWriter, writing_encoded
from headrace.sequence.epochs import ResolvedSource
from headrace.sequence.fim import PLAIN, rearrange
from headrace.sequence.grouping.joiner import Joiner
from headrace.sequence.grouping.step import group_name
from headrace.sequence.layout import BASE, REWRITTEN
from headrace.sequence.parameters import SequenceParameters
from headrace.sequence.sampling import End, changes, in_slice, kinds, named, sampled
from headrace.tokens.engine import Engine, Texts

_COLUMNS = ("text", "turns", "origin_file", "origin_row", "repo", "path", "language")
_TEXT_BYTES = 8 << 20  # text decoded at a time: one row group of documents
_MEMORY_PER_BYTE = 12  # per byte of a documents shard on disk; measured for the token store, which does the same work


def plan(sequence: SequenceParameters, ctx: TaskContext) -> list[dict[str, Any]]:
    """One task per shard; what cannot be resolved is reported before any work is done."""
    bounds: dict[str, list[int]] = {}
    for take in sequence.resolved(ctx).sources:
        if take.wanted is not None and changes(sequence, take.name) and take.name not in sequence.chat_sources:
            # Fill-in-the-middle only adds sentinels, so what is enough before it is enough after.
            bounds[take.key] = list(weigh.end_of(sequence, ctx, "weigh", take))
    if sequence.template is not None and sequence.template.source is not None:
        _require_markers(sequence, ctx)
    sizes = [entry["bytes"] for entry in ctx.input("documents").shards]
    return [{"shard": shard, "bounds": bounds, "size": size} for shard, size in enumerate(sizes)]


def _require_markers(sequence: SequenceParameters, ctx: TaskContext) -> None:
    """Check that the tokenizer knows the markers that a Jinja template writes.

    Raises:
        UserError: it does not, and the template is headrace's own.
    """
    template, control = sequence.template, sequence.control(ctx)
    assert template is not None
    assert control is not None
    if missing := template.missing(control.ids):
        what = f"The tokenizer has no control tokens for what the chat template writes: {', '.join(missing)}"
        if template.where in BUILT_IN:
            raise UserError(
                f"{what}.", f"stages.{sequence.stage}.chat", f"Add them: `tokenizer: {{special: {{add: {missing}}}}}`."
            )
        warnings.warn(f"{what}. They become ordinary text.", Notice, stacklevel=2)


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
    refusals: list[dict[str, Any]] = []
    joiners = sequence.joiners(ctx)
    if any((part.kind != PLAIN).any() for part in parts):
        with writing_encoded(ctx, np.dtype(ctx.input("tokens").manifest.extra["dtype"])) as writer:
            for batch, first in text_batches(ctx, spec["shard"]):
                for part in parts:
                    refusals += encode(sequence, ctx, batch, first, held, part, writer, joiners)
    for part in parts:
        part.at, part.lengths = part.at[part.lengths >= 0], part.lengths[part.lengths >= 0]
    if refusals:
        with ctx.file("quarantine/{task}.jsonl") as out:
            lines = (orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE) for entry in refusals)
            out.path.write_bytes(b"".join(lines))
    totals: dict[str, list[int]] = {take.key: [] for take in takes if take.wanted is not None}
    for part in parts:
        if part.take.wanted is not None:
            written = weigh.write(sequence, ctx, held, part.take, part.copy, part.at, part.lengths)
            totals[part.take.key].append(written)
    ctx.progress(rows=len(held.shard.rows))
    result: dict[str, Any] = {"totals": totals}
    if sequence.chat_sources:
        result["encoded"] = sum(len(part.at) for part in parts if part.take.name in sequence.chat_sources)
    if refusals:
        result["refused"] = dict(Counter(entry["source"] for entry in refusals))
        result["first"] = refusals[0]
    return result


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
    """Batches of a documents shard, each with the global row number of its first document."""
    documents = ctx.input("documents")
    first = int(documents.row_offsets[shard])
    # The retry of a shard that killed its worker processes one document at a time, to find the one responsible.
    limit = 1 if ctx.careful else _TEXT_BYTES
    for batch in read_batches(documents.shard_path(shard), _COLUMNS, limit):
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
    joiners: Mapping[str, Joiner],
) -> list[dict[str, Any]]:
    """Encode the documents of a batch of text that a copy changes, and record their lengths, -1 for conversations that
    the template refuses; returns the quarantine entries of those."""
    rows = held.shard.rows
    low, high = np.searchsorted(rows, np.array([first, first + batch.num_rows], dtype=np.uint64))
    start, stop = np.searchsorted(part.at, [low, high])
    mine = start + np.flatnonzero(part.kind[start:stop] != PLAIN)
    if not len(mine):
        return []
    engine = sequence.engine(ctx)
    inside = rows[part.at[mine]] - np.uint64(first)
    if part.take.name in sequence.chat_sources:
        part.lengths[mine], refused = encode_chats(sequence, ctx, batch, inside, first, engine, writer)
        return [{"source": part.take.name, **entry} for entry in refused]
    texts = Texts.of(batch.column("text").take(pa.array(inside.astype(np.int64))))
    cuts = np.zeros((len(mine), 2)) if part.cuts is None else part.cuts[mine]
    headed = (part.kind[mine] & REWRITTEN) != 0
    for some in (np.flatnonzero(~headed), np.flatnonzero(headed)):
        if not len(some):
            continue
        chosen = mine[some]
        wanted = Texts.of(texts.bytes_of(int(i)) for i in some) if headed.any() else texts
        before: list[np.ndarray] = []
        leads = None
        if headed[some[0]]:
            told = batch.take(pa.array(inside[some].astype(np.int64)))
            names = named(sequence, held, part.take, part.at[chosen], part.copy)
            wanted, before, leads = head(sequence, part.take.name, joiners[part.take.name], wanted, told, names, engine)
        out = rearrange(wanted, part.kind[chosen] & BASE, cuts[some], engine, first=True)
        tokens, offsets = preceded(out.tokens, out.offsets, before)
        writer.add(rows[part.at[chosen]], part.copy, tokens, offsets, leads=leads)
        part.lengths[chosen] = np.diff(offsets)
    return []


def head(
    sequence: SequenceParameters,
    source: str,
    joiner: Joiner,
    texts: Texts,
    told: pa.RecordBatch,
    names: np.ndarray,
    engine: Engine,
) -> tuple[Texts, list[np.ndarray], np.ndarray]:
    """Files with their headers; see :meth:`~headrace.sequence.grouping.joiner.Joiner.headed`."""
    by = sequence.groups[source].by
    columns = (told.column(name).to_pylist() for name in ("repo", "path", "language"))
    fields = [
        {"repo": group_name(by, repo, path), "path": path, "language": language}
        for repo, path, language in zip(*columns, strict=True)
    ]
    return joiner.headed([texts.bytes_of(i) for i in range(texts.count)], fields, names, engine)


def preceded(tokens: np.ndarray, offsets: np.ndarray, before: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Token lists with others before them, if there are any."""
    if not before:
        return tokens, offsets
    sizes = np.array([len(one) for one in before], dtype=np.int64)
    heads = np.cumsum(sizes) - sizes
    starts = np.stack([heads, sizes.sum() + offsets[:-1]], axis=1)
    lengths = np.stack([sizes, np.diff(offsets)], axis=1)
    joined = gather(np.concatenate([*before, tokens]), starts.ravel(), lengths.ravel())
    return joined, np.concatenate([[0], np.cumsum(lengths.sum(axis=1))])


def encode_chats(
    sequence: SequenceParameters,
    ctx: TaskContext,
    batch: pa.RecordBatch,
    inside: np.ndarray,
    first: int,
    engine: Engine,
    writer: EncodedWriter,
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Render and encode the conversations of a batch; returns int64[n], their numbers of tokens (-1 for those refused),
    and the quarantine entries."""
    from headrace.sequence.chat import transform, turns_of

    assert sequence.template is not None
    where = pa.array(inside.astype(np.int64))
    turns = [turns_of(column) for column in batch.column("turns").take(where).to_pylist()]
    texts = Texts.of(batch.column("text").take(where))
    # A row has room for one token more than it has targets: the end of the document.
    chats = transform(texts, turns, engine, sequence.template, sequence.control(ctx), sequence.seq_len)
    kept = np.ones(texts.count, dtype=bool)
    kept[list(chats.refused)] = False
    offsets = np.append(chats.offsets[:-1][kept], chats.offsets[-1])  # what is refused has no tokens
    writer.add((inside + np.uint64(first))[kept], 0, chats.tokens, offsets, chats.loss, chats.end_loss[kept])
    entries = []
    for i, error in chats.refused.items():
        file, row = (batch.column(name)[int(inside[i])].as_py() for name in ("origin_file", "origin_row"))
        excerpt = texts.bytes_of(i)[: 4 * EXCERPT].decode("utf-8", "replace")[:EXCERPT]
        entries.append({"file": file, "line": row + 1, "error": error, "excerpt": excerpt})
    return np.where(kept, np.diff(chats.offsets), -1), entries
