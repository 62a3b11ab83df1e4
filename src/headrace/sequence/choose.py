"""Choose: which copies of which documents a stage takes, in which order, and how long they are once changed.

One task a shard of the token store. Only numbers move on, one record a copy, to the block of its key; documents that
the stage changes are encoded from their text here and kept beside.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from headrace.documents.store import read_batches
from headrace.flow.exchange import Spill
from headrace.flow.keys import keyed, salt, unit
from headrace.flow.task import TaskContext
from headrace.sequence.corpus import document_ids
from headrace.sequence.encoded import EncodedWriter, writing_encoded
from headrace.sequence.epochs import ResolvedSource
from headrace.sequence.fim import PLAIN, PSM, SPM, draw
from headrace.sequence.fim import arrange as rearrange
from headrace.sequence.layout import CHOSEN
from headrace.tokens.engine import Engine, Texts
from headrace.tokens.store import TokenShard, open_shard

if TYPE_CHECKING:
    from headrace.sequence.step import Sequence

CHAT = 3
_TEXT_BYTES = 8 << 20  # text decoded at a time: a row group of documents
_MEMORY_PER_BYTE = 12  # of a documents shard on disk; measured for the token store, which does the same work


def plan(step: Sequence, ctx: TaskContext) -> list[dict[str, Any]]:
    """One task a shard; what cannot be resolved is told before any work is done."""
    step.resolved(ctx)
    changes = bool(step.chat_sources) or any(take.fim is not None for take in step.config.sources.values())
    # The text of a shard is read only where documents change.
    sizes = [entry["bytes"] for entry in ctx.input("documents").shards]
    return [{"shard": shard, "text_bytes": size if changes else 0, "size": size} for shard, size in enumerate(sizes)]


def memory(spec: dict[str, Any]) -> int:
    """Ids and records of a shard, and what tokenising its text takes."""
    return (32 << 20) + _MEMORY_PER_BYTE * int(spec["text_bytes"])


@dataclass
class Copy:
    """The documents of a shard that one copy of one source takes.

    Attributes:
        number: the copy.
        at: int64[n], their places in the tokens shard, ascending.
        records: CHOSEN[n].
        cuts: float64[n, 2] for fill-in-the-middle, else None.
    """

    number: int
    at: np.ndarray
    records: np.ndarray
    cuts: np.ndarray | None = None


@dataclass
class Tally:
    """Counts of one source over all its copies.

    Attributes:
        documents: of each copy.
        tokens: as the store has them.
        laid: after fill-in-the-middle and templates, ends of documents not counted.
        fim_psm: documents in prefix-suffix-middle order.
        fim_spm: documents in suffix-prefix-middle order.
        chat: conversations.
    """

    documents: list[int] = field(default_factory=list)
    tokens: int = 0
    laid: int = 0
    fim_psm: int = 0
    fim_spm: int = 0
    chat: int = 0


def work(step: Sequence, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
    """Choose from one shard."""
    number = spec["shard"]
    tokens = ctx.input("tokens")
    shard = open_shard(tokens, number)
    ids = document_ids(ctx.input("documents"), number, shard.rows)
    split = tokens.manifest.extra["splits"].index(step.split)
    blocks = step.blocks(ctx)
    sums = np.zeros(blocks.count, dtype=np.int64)
    tallies: dict[str, Tally] = {}
    with Spill(ctx, "chosen", CHOSEN, blocks.count) as spill:

        def hand_on(source: int, records: np.ndarray) -> None:
            block = blocks.block(source, records["key"])
            np.add.at(sums, block, records["length"].astype(np.int64) + 1)
            spill.add(block, records)

        waiting: list[tuple[ResolvedSource, list[Copy]]] = []
        for take in step.resolved(ctx).sources:
            index = tokens.manifest.extra["sources"].index(take.name)
            tally = tallies[take.name] = Tally()
            places = chosen(step, shard, ids, take, index, split)
            copies = [one_copy(step, shard, ids, take, index, at, copy) for copy, at in places]
            for copy in copies:
                kind = copy.records["kind"]
                tally.documents.append(len(kind))
                tally.tokens += int(copy.records["length"].sum())
                tally.fim_psm += int((kind == PSM).sum())
                tally.fim_spm += int((kind == SPM).sum())
                tally.chat += int((kind == CHAT).sum())
                unchanged = copy.records[kind == PLAIN]
                tally.laid += int(unchanged["length"].sum())
                hand_on(index, unchanged)
            if any((copy.records["kind"] != PLAIN).any() for copy in copies):
                waiting.append((take, copies))
        if waiting:
            with writing_encoded(ctx, np.dtype(tokens.manifest.extra["dtype"])) as writer:
                for batch, first in text_batches(ctx, number):
                    for take, copies in waiting:
                        for records in encode(step, ctx, batch, first, ids, shard, take, copies, writer):
                            tallies[take.name].laid += int(records["length"].sum())
                            hand_on(int(records["source"][0]), records)
        ctx.progress(rows=len(shard.rows))
    with ctx.intermediate(f"stream-{ctx.task:05d}.npy") as out, open(out.path, "wb") as f:
        np.save(f, sums)
    return {"sources": {name: vars(tally) for name, tally in tallies.items()}}


def chosen(
    step: Sequence, shard: TokenShard, ids: np.ndarray, take: ResolvedSource, index: int, split: int
) -> list[tuple[int, np.ndarray]]:
    """The copies that a stage takes of a source, and int64[n] the places in the shard that each takes."""
    low, high = take.slice
    inside = np.flatnonzero((shard.source == index) & (shard.split == split))
    if (low, high) != (0.0, 1.0):
        # The stage is no part of this salt: what one stage slices away is what another may take.
        place = unit(keyed(salt(step.seed, "slice"), ids[inside]))
        inside = inside[(low <= place) & (place < high)]
    copies = []
    for copy in range(take.copies):
        at = inside
        if take.share(copy) < 1:
            at = inside[unit(keyed(salt(step.seed, "epoch", step.stage, copy), ids[inside])) < take.share(copy)]
        copies.append((copy, at))
    return copies


def one_copy(
    step: Sequence, shard: TokenShard, ids: np.ndarray, take: ResolvedSource, index: int, at: np.ndarray, copy: int
) -> Copy:
    """The records of a copy: order key and kind drawn for this copy, length still that of the plain document."""
    records = np.zeros(len(at), dtype=CHOSEN)
    records["key"] = keyed(salt(step.seed, "order", step.stage, copy), ids[at])
    records["row"], records["source"], records["epoch"] = shard.rows[at], index, copy
    records["length"] = shard.offsets[at + 1] - shard.offsets[at]
    fim = step.config.sources[take.name].fim
    cuts = None
    if take.name in step.chat_sources:
        records["kind"] = CHAT
    elif fim is not None and step.config.fim_level == "document":
        kind, cuts = draw(ids[at], salt(step.seed, "fim", step.stage, copy), fim.rate, fim.spm)
        records["kind"] = np.where(records["length"] > 0, kind, PLAIN)
    return Copy(copy, at, records, cuts)


def text_batches(ctx: TaskContext, shard: int) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Batches of text and turns of a documents shard, each with the dense row of its first document."""
    documents = ctx.input("documents")
    first = int(documents.row_offsets[shard])
    # The retry of a shard that killed its worker goes one document at a time, to find the one that does it.
    limit = 1 if ctx.careful else _TEXT_BYTES
    for batch in read_batches(documents.shard_path(shard), ["text", "turns"], limit):
        ctx.at(f"documents row {first} and the {batch.num_rows - 1} after it")
        yield batch, first
        first += batch.num_rows


def encode(
    step: Sequence,
    ctx: TaskContext,
    batch: pa.RecordBatch,
    first: int,
    ids: np.ndarray,
    shard: TokenShard,
    take: ResolvedSource,
    copies: list[Copy],
    writer: EncodedWriter,
) -> list[np.ndarray]:
    """Encode those documents of a batch of text that a source's copies change; give their records with true lengths."""
    engine = step.engine(ctx)
    low, high = np.searchsorted(shard.rows, np.array([first, first + batch.num_rows], dtype=np.uint64))
    done = []
    lengths: np.ndarray | None = None
    for copy in copies:
        inside = slice(*np.searchsorted(copy.at, [low, high]))
        records = copy.records[inside]
        mine = np.flatnonzero(records["kind"] != PLAIN)
        if not len(mine):
            continue
        records, at = records[mine], copy.at[inside][mine]
        if take.name in step.chat_sources:
            if lengths is None:
                # A conversation is the same in every copy: it is encoded once, under copy 0.
                every = np.unique(np.concatenate([c.at[slice(*np.searchsorted(c.at, [low, high]))] for c in copies]))
                lengths = np.zeros(high - low, dtype=np.int64)
                lengths[every - low] = encode_chats(
                    step, batch, shard.rows[every] - np.uint64(first), first, engine, writer
                )
            records["length"] = lengths[at - low]
        else:
            assert copy.cuts is not None
            where = pa.array((records["row"] - np.uint64(first)).astype(np.int64))
            texts = Texts.of(batch.column("text").take(where))
            out = rearrange(texts, records["kind"], copy.cuts[inside][mine], engine, first=True)
            writer.add(records["row"], copy.number, out.tokens, out.offsets)
            records["length"] = np.diff(out.offsets)
        done.append(records)
    return done


def encode_chats(
    step: Sequence, batch: pa.RecordBatch, inside: np.ndarray, first: int, engine: Engine, writer: EncodedWriter
) -> np.ndarray:
    """Render and encode conversations of a batch; int64[n], their tokens."""
    from headrace.sequence.chat import transform, turns_of

    assert step.config.chat is not None
    where = pa.array(inside.astype(np.int64))
    turns = [turns_of(column) for column in batch.column("turns").take(where).to_pylist()]
    chats = transform(Texts.of(batch.column("text").take(where)), turns, engine, step.config.chat)
    writer.add(inside + np.uint64(first), 0, chats.tokens, chats.offsets, chats.loss, chats.end_loss)
    return np.diff(chats.offsets)
