"""Documents removed for their quality: those that an annotator's scores do not keep, of all that nothing else removes.

    rank  map   the documents of a shard that are left, ordered by score within their language or source
    cut   fold  where each of these groups ends (:mod:`headrace.select.quality.ranking`)

No text is read, so a budget can move at once.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from headrace.documents.store import read_columns
from headrace.flow.notices import Notice
from headrace.flow.step import Step
from headrace.flow.task import TaskContext
from headrace.recipe.quality import Keep
from headrace.select.quality.ranking import (
    Budget,
    Cut,
    Group,
    best_first,
    cuts,
    nothing,
    open_tables,
    ranks,
    scores_of,
    write,
)

REASON = "quality"


@dataclass(frozen=True)
class Selection:
    """What the recipe keeps by quality.

    Attributes:
        keep: the recipe's section.
        annotator: the annotator's name.
        scores: its step :class:`headrace.select.quality.step.Quality`.
        lengths: the tokens of each document, for a budget of tokens.
        identified: the step of the annotator that identifies languages, if documents are ranked within these.
    """

    keep: Keep
    annotator: str
    scores: Step
    lengths: Step | None
    identified: Step | None = None

    def params(self) -> dict[str, Any]:
        """What decides which documents are kept, besides their scores."""
        return self.keep.model_dump(mode="json", exclude={"annotator"}) | {"by": self.within}

    @property
    def within(self) -> str | None:
        """What documents are ranked within."""
        return "identified" if self.identified is not None else self.keep.by

    def inputs(self) -> dict[str, Step]:
        """The scores, tokens, and identified languages."""
        more = {"lengths": self.lengths, "identified": self.identified}
        return {"quality": self.scores, **{role: step for role, step in more.items() if step is not None}}

    @property
    def budget(self) -> Budget:
        """How much to keep."""
        return Budget(self.keep.share, self.keep.tokens, self.keep.above)

    def rank(self, ctx: TaskContext, shard: int, left: npt.NDArray[np.bool_]) -> dict[str, Any]:
        """Order a shard's documents.

        Args:
            ctx: a task of the phase ``rank``.
            shard: the shard.
            left: bool[n], the documents that nothing else removes.
        """
        documents = ctx.input("documents")
        by = [self.keep.by] if self.keep.by and self.identified is None else []
        table = read_columns(documents.shard_path(shard), ["bytes", *by])
        scores = read_columns(ctx.input("quality").shard_path(shard), ["score"]).column("score").to_numpy()
        rows = np.flatnonzero(left)
        weights = table.column("bytes").to_numpy()
        if self.lengths is not None:
            weights = read_columns(ctx.input("lengths").shard_path(shard), ["tokens"]).column("tokens").to_numpy() + 1
        groups = table.column(by[0]).combine_chunks() if by else pa.nulls(len(left), pa.string())
        if self.identified is not None:
            told = read_columns(ctx.input("identified").shard_path(shard), ["label"])
            groups = told.column("label").combine_chunks()
        with ctx.intermediate(_name(shard)) as out, open(out.path, "wb") as f:
            first = np.uint64(documents.row_offsets[shard])
            chosen = groups.take(pa.array(rows))
            written = write(f, best_first(scores[rows]), rows.astype(np.uint64) + first, weights[rows], chosen)
        return {"groups": written}

    def cut(self, ctx: TaskContext) -> dict[str, Any]:
        """Where each group ends."""
        tables = self._tables(ctx)
        chosen = {name: some for name, some in tables.items() if self.keep.only is None or name in self.keep.only}
        found = cuts(chosen, self.budget)
        total = sum(cut.total for cut in found.values())
        found |= {name: nothing(some) for name, some in tables.items() if name not in chosen}
        if self.keep.tokens is not None and total < self.keep.tokens:
            warnings.warn(
                f"quality.keep asks for {self.keep.tokens:,} tokens, but only {total:,} are left to choose from: all "
                "are kept.",
                Notice,
                stacklevel=2,
            )
        return {"groups": [{"group": name, "cut": cut.score, **asdict(cut)} for name, cut in found.items()]}

    def found(self, ctx: TaskContext) -> dict[Group, Cut]:
        """What :meth:`cut` found."""
        told = ctx.results("cut")[0]["groups"]
        return {one["group"]: Cut(**{field.name: one[field.name] for field in fields(Cut)}) for one in told}

    def removals(self, ctx: TaskContext, shard: int) -> tuple[npt.NDArray[np.int64], list[str]]:
        """The documents of a shard that are removed: their rows within it, and the evidence for each.

        The evidence is ``{"annotator", "score", "rank", "of", "cut", "kept", "language" or "source"}``: the document is
        the rank-th best of so many, of which the best are kept, down to the score ``cut``.
        """
        tables, first = self._tables(ctx), int(ctx.input("documents").row_offsets[shard])
        rows, evidence = [np.empty(0, dtype=np.int64)], []
        for name, cut in self.found(ctx).items():
            mine = tables[name][shard]
            gone = np.flatnonzero(~cut.takes(mine[0], mine[1]))
            if not len(gone):
                continue
            rows.append(mine[1][gone].astype(np.int64) - first)
            shared: dict[str, Any] = {"of": cut.documents, "cut": cut.score, "kept": cut.taken}
            shared |= {"source" if self.keep.by == "source" else "language": name} if self.keep.by else {}
            scores, places = scores_of(mine[0][gone]), ranks(tables[name], shard)[gone].tolist()
            for score, place in zip(scores, places, strict=True):
                about = {"annotator": self.annotator, "score": score, "rank": place, **shared}
                evidence.append(orjson.dumps(about).decode())
        return np.concatenate(rows), evidence

    def _tables(self, ctx: TaskContext) -> dict[Group, list[np.ndarray]]:
        told = [result["groups"] for result in ctx.results("rank")]
        return open_tables([ctx.scratch("rank", _name(shard)) for shard in range(len(told))], told)


def _name(shard: int) -> str:
    return f"ranked-{shard:05d}.npy"
