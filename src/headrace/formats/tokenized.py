"""The step that writes documents as tokens, for Megatron to shuffle, pack and blend: a ``.bin`` and ``.idx`` for each
source and split, a document a sequence, closed by the end-of-document token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from headrace.errors import UserError
from headrace.flow.artifact import Artifact, ConservationError
from headrace.flow.step import Phase, Step
from headrace.flow.task import TaskContext
from headrace.formats.format import BLOCK_TOKENS
from headrace.formats.megatron import append, write_index
from headrace.formats.options import Options
from headrace.tokens.kept import SPLITS
from headrace.tokens.store import TokenShard, open_shard

# Blocks of tokens with the places they come from, 8 bytes each.
TASK_MEMORY = 128 << 20


@dataclass(frozen=True)
class TokenCorpus:
    """The tokens of documents to export.

    Attributes:
        tokens: the folder of the token store; never part of an identity.
        identity: its identity.
        eod: the id of the end-of-document token.
        splits: of which splits.
        sources: of which sources; of all if empty.
    """

    tokens: str
    identity: str
    eod: int
    splits: tuple[str, ...] = SPLITS
    sources: tuple[str, ...] = ()

    @staticmethod
    def from_json(value: dict[str, Any]) -> TokenCorpus:
        """Read what ``asdict`` gave, after its way through JSON."""
        return TokenCorpus(**{**value, "splits": tuple(value["splits"]), "sources": tuple(value["sources"])})

    def params(self) -> dict[str, Any]:
        """What determines which tokens these are."""
        return {name: value for name, value in asdict(self).items() if name != "tokens"}

    def open(self) -> Artifact:
        """The token store; each file is compared with its digest before it is first read.

        Raises:
            UserError: it is gone, damaged or another.
        """
        store = _opened(Path(self.tokens))
        if store.manifest.identity != self.identity:
            raise UserError("The run has changed since the export began.", self.tokens, "Run the export again.")
        return store

    def groups(self) -> list[tuple[str, str]]:
        """The sources and splits that have documents, in order."""
        store = self.open()
        return [
            (source, split)
            for source in store.manifest.extra["sources"]
            for split in SPLITS
            if split in self.splits
            and (not self.sources or source in self.sources)
            and store.manifest.counts[source].get(split, {}).get("documents")
        ]

    def count(self, source: str, split: str) -> dict[str, int]:
        """Documents, and tokens with the end of each document, of a source and split."""
        counts = self.open().manifest.counts[source][split]
        return {"documents": counts["documents"], "tokens": counts["tokens"] + counts["documents"]}


@lru_cache(maxsize=4)
def _opened(path: Path) -> Artifact:
    return Artifact.open(path, verify=True)


@dataclass(frozen=True)
class TokenExport(Step):
    """Documents written as tokens in Megatron's format.

    Attributes:
        format: ``megatron``.
        corpus: what is written.
        options: about the files.
    """

    kind: ClassVar[str] = "export"
    VERSION: ClassVar[int] = 1
    format: str
    corpus: TokenCorpus
    options: Options

    def params(self) -> dict[str, Any]:
        """The format and which tokens."""
        return {"format": self.format, "tokens": self.corpus.params()}

    def inputs(self) -> dict[str, Step]:
        """None: the tokens lie in another folder, and are part of the parameters."""
        return {}

    def check(self) -> None:
        """Every token store can be written."""

    def left_behind(self) -> str:
        """What is told to be left behind."""
        return f"{self.format} holds tokens of documents but no ids, provenance, licenses or turns: left behind."

    def phases(self) -> list[Phase]:
        """A piece of each file for each shard of tokens, then the files."""
        return [
            Phase("documents", self._plan, self._write, lambda spec: TASK_MEMORY),
            Phase("join", self._plan_files, self._join, lambda spec: TASK_MEMORY),
        ]

    def _plan(self, ctx: TaskContext) -> list[dict[str, Any]]:
        shards = self.corpus.open().shards
        return [{"shard": shard, "size": entry["bytes"]} for shard, entry in enumerate(shards)]

    def _write(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        store = self.corpus.open()
        shard, written = open_shard(store, spec["shard"]), []
        for source, split in self.corpus.groups():
            number = store.manifest.extra["sources"].index(source)
            mine = np.flatnonzero((shard.source == number) & (shard.split == SPLITS.index(split)))
            if len(mine):
                lengths = np.diff(shard.offsets)[mine] + 1
                with ctx.intermediate(_piece(ctx.task, source, split, "bin")) as out, open(out.path, "wb") as file:
                    for tokens in closed(shard, mine, lengths, self.corpus.eod):
                        file.write(tokens.data)
                        ctx.progress(bytes=tokens.nbytes)
                with ctx.intermediate(_piece(ctx.task, source, split, "lengths")) as out:
                    lengths.astype("<i4").tofile(out.path)
                written.append([source, split])
        return {"written": written}

    def _plan_files(self, ctx: TaskContext) -> list[dict[str, Any]]:
        pieces: dict[tuple[str, str], list[int]] = {group: [] for group in self.corpus.groups()}
        for task, result in enumerate(ctx.results("documents")):
            for source, split in result["written"]:
                pieces[source, split].append(task)
        return [{"source": source, "split": split, "pieces": tasks} for (source, split), tasks in pieces.items()]

    def _join(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        source, split = spec["source"], spec["split"]
        pieces = {
            kind: [ctx.scratch("documents", _piece(task, source, split, kind)) for task in spec["pieces"]]
            for kind in ("bin", "lengths")
        }
        with ctx.file(f"{source}/{split}.bin") as out, open(out.path, "wb") as file:
            for piece in pieces["bin"]:
                append(ctx, file, piece)
        dtype = np.dtype(self.corpus.open().manifest.extra["dtype"])
        documents = sum(piece.stat().st_size for piece in pieces["lengths"]) // 4
        with ctx.file(f"{source}/{split}.idx") as out, open(out.path, "wb") as file:
            write_index(file, lambda: _lengths(pieces["lengths"]), documents, dtype)
        return {
            "documents": documents,
            "tokens": sum(piece.stat().st_size for piece in pieces["bin"]) // dtype.itemsize,
        }

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """What the files hold, checked against the token store."""
        counts = {}
        for spec, made in zip(ctx.specs("join"), ctx.results("join"), strict=True):
            expected = self.corpus.count(spec["source"], spec["split"])
            if made != expected:
                raise ConservationError(f"{spec['source']} {spec['split']} has {expected}; written are {made}")
            counts[f"{spec['source']}/{spec['split']}"] = made
        return {"counts": counts, "format": self.format, "tokens": self.corpus.params()}


def _piece(task: int, source: str, split: str, kind: str) -> str:
    return f"{task:05d}/{source}-{split}.{kind}"


def _lengths(pieces: list[Path]) -> Iterator[np.ndarray]:
    for piece in pieces:
        with open(piece, "rb") as file:
            while len(block := np.fromfile(file, "<i4", BLOCK_TOKENS)):
                yield block


def closed(shard: TokenShard, mine: np.ndarray, lengths: np.ndarray, eod: int) -> Iterator[np.ndarray]:
    """Documents with their end, in blocks of whole documents; longer ones in two.

    Args:
        shard: of the token store.
        mine: int64[n]: which of its documents.
        lengths: int64[n]: tokens of each with its end.
        eod: the end.
    """
    ends, end = np.cumsum(lengths), np.array([eod], dtype=shard.tokens.dtype)
    first = 0
    while first < len(mine):
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(ends.searchsorted(before + BLOCK_TOKENS, side="right")))
        begin = shard.offsets[mine[first:last]]
        bounds = zip(begin.tolist(), (begin + lengths[first:last] - 1).tolist(), strict=True)
        pieces = [piece for a, b in bounds for piece in (shard.tokens[a:b], end)]
        yield from pieces if last == first + 1 else [np.concatenate(pieces)]
        first = last
