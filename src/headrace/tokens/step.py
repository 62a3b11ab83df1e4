"""The step that tokenises: kept documents, whatever their split, to the token store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from headrace.flow.artifact import ConservationError
from headrace.flow.step import Phase, Step
from headrace.flow.task import TaskContext
from headrace.tokens.engine import Encoded, Engine, Texts, token_dtype
from headrace.tokens.kept import SPLITS, kept_rows
from headrace.tokens.load import open_engine
from headrace.tokens.store import TokenShard, write_shard

# Measured on a shard of 32 MB of code (7.8 MB compressed) and a vocabulary of 8,192: 150 MB above the process's base,
# of which 35 MB are the library and the tokenizer.
_MEMORY_BASE, _MEMORY_PER_BYTE = 64 << 20, 12


@dataclass(frozen=True)
class Tokens(Step):
    """The kept documents, tokenised once: no special tokens, nothing cut.

    Shard i holds the kept documents of the documents' shard i, in order.

    Attributes:
        documents: the step of the documents.
        verdicts: the step that says which are kept.
        tokenizer: the step of the tokenizer.
        sources: names of the sources, in the order of their numbers.
    """

    documents: Step
    verdicts: Step
    tokenizer: Step
    sources: tuple[str, ...]

    kind: ClassVar[str] = "tokens"
    VERSION: ClassVar[int] = 2

    def params(self) -> dict[str, Any]:
        """The sources' order, which gives their numbers."""
        return {"sources": list(self.sources)}

    def inputs(self) -> dict[str, Step]:
        """Documents, verdicts, tokenizer."""
        return {"documents": self.documents, "verdicts": self.verdicts, "tokenizer": self.tokenizer}

    def phases(self) -> list[Phase]:
        """One round: a task for each shard of the documents."""
        return [Phase("encode", self._plan, self._encode, memory=self._memory)]

    def _plan(self, ctx: TaskContext) -> list[dict[str, Any]]:
        sizes = [entry["bytes"] for entry in ctx.input("documents").shards]
        return [{"shard": shard, "bytes": size, "size": size} for shard, size in enumerate(sizes)]

    @staticmethod
    def _memory(spec: dict[str, Any]) -> int:
        return _MEMORY_BASE + _MEMORY_PER_BYTE * int(spec["bytes"])

    def _encode(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        shard = int(spec["shard"])
        documents = ctx.input("documents")
        engine = open_engine(ctx.input("tokenizer"), ctx.threads)
        dtype = token_dtype(engine.vocab_size)
        number = {name: i for i, name in enumerate(self.sources)}
        rows, source, split, lengths, tokens = [], [], [], [], []
        counts = np.zeros((len(self.sources), len(SPLITS), 3), dtype=np.int64)
        for kept in kept_rows(documents, ctx.input("verdicts"), shard, ("id", "text", "source")):
            texts = Texts.of(kept.columns["text"])
            encoded = _encode_noting(ctx, engine, texts, kept.columns["id"].to_pylist())
            names = kept.columns["source"].to_pylist()
            rows.append(kept.rows.astype(np.uint64) + np.uint64(documents.row_offsets[shard]))
            source.append(np.array([number[name] for name in names], dtype=np.uint16))
            split.append(kept.split)
            lengths.append(np.diff(encoded.offsets))
            tokens.append(encoded.tokens.astype(dtype))
            amounts = np.stack([np.ones(len(names), dtype=np.int64), lengths[-1], np.diff(texts.offsets)], axis=1)
            np.add.at(counts, (source[-1], split[-1]), amounts)
            ctx.progress(rows=len(names), bytes=int(amounts[:, 2].sum()))
        with ctx.shard(".arrow") as out:
            out.rows = sum(map(len, rows))
            offsets = np.zeros(out.rows + 1, dtype=np.int64)
            np.cumsum(_joined(lengths, np.dtype(np.int64)), out=offsets[1:])
            made = TokenShard(
                rows=_joined(rows, np.dtype(np.uint64)),
                source=_joined(source, np.dtype(np.uint16)),
                split=_joined(split, np.dtype(np.uint8)),
                offsets=offsets,
                tokens=_joined(tokens, dtype),
            )
            write_shard(out.path, made)
        return {"rows": out.rows, "counts": counts.tolist()}

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """Count documents, tokens and bytes of each source and split; kept documents in, as many token lists out."""
        results = ctx.results("encode")
        tokenizer = ctx.input("tokenizer").manifest.extra
        total = np.zeros((len(self.sources), len(SPLITS), 3), dtype=np.int64)
        for result in results:
            total += np.array(result["counts"], dtype=np.int64).reshape(total.shape)
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
        }


def _joined(parts: list[np.ndarray], dtype: np.dtype) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, dtype=dtype)


def _encode_noting(ctx: TaskContext, engine: Engine, texts: Texts, ids: list[str]) -> Encoded:
    """Encode a batch, noting which documents are in hand: one at a time once a worker has died of this task."""
    if not ctx.careful:
        ctx.at(f"documents {ids[0]} to {ids[-1]}")
        return engine.encode(texts)
    parts = []
    for i, document in enumerate(ids):
        ctx.at(f"document {document}")
        parts.append(engine.encode(Texts(texts.data, texts.offsets[i : i + 2])))
    offsets = np.concatenate([[0], np.cumsum([len(part.tokens) for part in parts])]).astype(np.int64)
    return Encoded(np.concatenate([part.tokens for part in parts]), offsets)
