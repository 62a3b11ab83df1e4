"""The step that tokenizes: kept documents, whatever their split, to the token store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from headrace.flow.artifact import ConservationError
from headrace.flow.reuse import task_key
from headrace.flow.step import Phase, Step
from headrace.flow.task import TaskContext
from headrace.tokens.engine import Encoded, Engine, Texts, token_dtype
from headrace.tokens.kept import SPLITS, kept_rows, verdicts_of
from headrace.tokens.lists import Lists, offsets_of
from headrace.tokens.load import open_engine
from headrace.tokens.store import TokenShard, write_shard

# Measured on a shard of 32 MB of code (7.8 MB compressed) and a vocabulary of 8,192: 150 MB above the process's base,
# 35 MB of which are the library and the tokenizer.
_MEMORY_BASE, _MEMORY_PER_BYTE = 64 << 20, 12
_NO_ROWS = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Tokens(Step):
    """The kept documents, tokenized once: no special tokens, nothing truncated.

    Shard i holds the kept documents of documents shard i, in order.

    Attributes:
        documents: the Documents step.
        verdicts: the Verdicts step.
        tokenizer: the Tokenizer step.
        sources: source names, in the order of their indices.
    """

    documents: Step
    verdicts: Step
    tokenizer: Step
    sources: tuple[str, ...]

    kind: ClassVar[str] = "tokens"
    VERSION: ClassVar[int] = 2

    def params(self) -> dict[str, Any]:
        """The order of the sources, which gives their indices."""
        return {"sources": list(self.sources)}

    def inputs(self) -> dict[str, Step]:
        """Documents, verdicts, tokenizer."""
        return {"documents": self.documents, "verdicts": self.verdicts, "tokenizer": self.tokenizer}

    def phases(self) -> list[Phase]:
        """One phase: a task for each documents shard."""
        return [Phase("encode", self._plan, self._encode, memory=self._memory)]

    def _plan(self, ctx: TaskContext) -> list[dict[str, Any]]:
        """A shard is reused if its documents, which of them are kept, and the tokenizer are the same; if other
        documents are kept, the lists of those that were kept before are reused."""
        fingerprint = ctx.input("tokenizer").manifest.extra["fingerprint"]
        specs = []
        for shard, entry in enumerate(ctx.input("documents").shards):
            keep, split = verdicts_of(ctx.input("verdicts"), shard)
            which = xxhash.xxh3_128_hexdigest(np.where(keep, split, np.uint8(len(SPLITS))).tobytes())
            keys = {
                "key": task_key(self, entry["digest"], fingerprint, which),
                "like": task_key(self, entry["digest"], fingerprint),
            }
            specs.append({"shard": shard, "bytes": entry["bytes"], "size": entry["bytes"], **keys})
        return specs

    @staticmethod
    def _memory(spec: dict[str, Any]) -> int:
        return _MEMORY_BASE + _MEMORY_PER_BYTE * int(spec["bytes"])

    def _encode(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        shard, documents, verdicts = int(spec["shard"]), ctx.input("documents"), ctx.input("verdicts")
        dtype = token_dtype(ctx.input("tokenizer").manifest.extra["vocab_size"])
        rows, split, names = [_NO_ROWS], [np.empty(0, dtype=np.uint8)], [pa.array([], pa.string())]
        for kept in kept_rows(documents, verdicts, shard, ("source",)):
            rows.append(kept.rows)
            split.append(kept.split)
            names.append(kept.columns["source"].cast(pa.string()))
        mine = np.concatenate(rows)
        before = Lists.of_file(ctx.like()).among(mine)
        new = Lists.none(dtype)
        if len(before.rows) < len(mine):
            new = _encode_new(ctx, open_engine(ctx.input("tokenizer"), ctx.threads), shard, before.rows, dtype)
        lists = before.merged(new, dtype)
        if not np.array_equal(lists.rows, mine):
            raise ConservationError(f"shard {shard}: {len(mine)} documents are kept, {len(lists.rows)} were encoded")
        sources = pa.concat_arrays(names)
        present = sorted(sources.unique().to_pylist())
        source = pc.index_in(sources, pa.array(present, pa.string())).to_numpy(zero_copy_only=False).astype(np.uint16)
        made = TokenShard(
            mine.astype(np.uint64), source, np.concatenate(split), lists.bytes, lists.offsets, lists.tokens
        )
        with ctx.shard(".arrow") as out:
            out.rows = len(mine)
            write_shard(out.path, made, present)
        counts = np.zeros((len(present), len(SPLITS), 3), dtype=np.int64)
        amounts = np.stack([np.ones(len(mine), dtype=np.int64), np.diff(lists.offsets), lists.bytes], axis=1)
        np.add.at(counts, (source, made.split), amounts)
        return {"rows": len(mine), "counts": dict(zip(present, counts.tolist(), strict=True))}

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """Count documents, tokens and bytes by source and split; there must be as many token lists as kept
        documents."""
        results = ctx.results("encode")
        tokenizer = ctx.input("tokenizer").manifest.extra
        total = np.zeros((len(self.sources), len(SPLITS), 3), dtype=np.int64)
        for result in results:
            for source, count in result["counts"].items():
                total[self.sources.index(source)] += np.array(count, dtype=np.int64)
        if int(total[:, :, 0].sum()) != sum(result["rows"] for result in results):
            raise ConservationError("the token store's rows do not add up to its documents per source and split")
        names = ("documents", "tokens", "bytes")
        counts = {
            source: {
                split: dict(zip(names, total[i, j].tolist(), strict=True))
                for j, split in enumerate(SPLITS) if total[i, j, 0]
            }
            for i, source in enumerate(self.sources)
        }  # fmt: skip
        return {
            "counts": counts,
            "dtype": token_dtype(tokenizer["vocab_size"]).name,
            "fingerprint": tokenizer["fingerprint"],
            "sources": list(self.sources),
            "splits": list(SPLITS),
            "first_rows": ctx.input("documents").row_offsets[:-1].tolist(),
        }


def _encode_new(ctx: TaskContext, engine: Engine, shard: int, but: np.ndarray, dtype: np.dtype) -> Lists:
    """The lists of a shard's kept documents, except for some rows."""
    rows, lengths, sizes, tokens = [], [], [], []
    for kept in kept_rows(ctx.input("documents"), ctx.input("verdicts"), shard, ("id", "text"), but):
        texts = Texts.of(kept.columns["text"])
        encoded = _encode_noting(ctx, engine, texts, kept.columns["id"].to_pylist())
        rows.append(kept.rows)
        lengths.append(np.diff(encoded.offsets))
        sizes.append(np.diff(texts.offsets))
        tokens.append(encoded.tokens.astype(dtype))
        ctx.progress(rows=len(kept.rows), bytes=int(sizes[-1].sum()))
    return Lists(
        np.concatenate(rows), np.concatenate(sizes), offsets_of(np.concatenate(lengths)), np.concatenate(tokens)
    )


def _encode_noting(ctx: TaskContext, engine: Engine, texts: Texts, ids: list[str]) -> Encoded:
    """Encode a batch, noting which documents are being processed: one at a time once a worker has died in this task."""
    if not ctx.careful:
        ctx.at(f"documents {ids[0]} to {ids[-1]}")
        return engine.encode(texts)
    parts = []
    for i, document in enumerate(ids):
        ctx.at(f"document {document}")
        parts.append(engine.encode(Texts(texts.data, texts.offsets[i : i + 2])))
    offsets = np.concatenate([[0], np.cumsum([len(part.tokens) for part in parts])]).astype(np.int64)
    return Encoded(np.concatenate([part.tokens for part in parts]), offsets)
