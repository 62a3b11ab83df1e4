"""The best documents of a source, for stages that take only those.

    rank  map   a shard's training documents of each such source, ordered by score within their language
    best  fold  where each of these groups ends (:mod:`headrace.select.quality.ranking`)

Tokens are counted as everywhere in a sequence, with the ends of documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.documents.store import read_columns
from headrace.errors import UserError
from headrace.flow.task import TaskContext
from headrace.recipe.quality import Best
from headrace.select.quality.ranking import Budget, Cut, best_first, cuts, open_tables, write
from headrace.sequence.epochs import SourceCount
from headrace.sequence.parameters import SequenceParameters
from headrace.tokens.store import TokenShard, open_shard

Scores = tuple[npt.NDArray[np.uint64], pa.Array]
"""Keys of scores and the groups of documents of a shard, in the order of the token store."""


def plan(ctx: TaskContext) -> list[dict[str, Any]]:
    """One task per shard."""
    return [{"shard": shard, "size": entry["rows"]} for shard, entry in enumerate(ctx.input("tokens").shards)]


def work(sequence: SequenceParameters, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
    """Order the documents of a shard."""
    shard, number = open_shard(ctx.input("tokens"), spec["shard"]), spec["shard"]
    extra = ctx.input("tokens").manifest.extra
    split = extra["splits"].index(sequence.split)
    written = {}
    for name, best in sequence.selected.items():
        mine = np.flatnonzero((shard.source == extra["sources"].index(name)) & (shard.split == split))
        keys, groups = _scores(ctx, number, name, best, shard)
        weights = np.diff(shard.offsets)[mine] + 1
        with ctx.intermediate(_name(name, number)) as out, open(out.path, "wb") as f:
            written[name] = write(f, keys[mine], shard.rows[mine], weights, groups.take(pa.array(mine)))
    return {"groups": written}


def _scores(ctx: TaskContext, number: int, source: str, best: Best, shard: TokenShard) -> Scores:
    documents = ctx.input("documents")
    at = shard.rows.astype(np.int64) - int(documents.row_offsets[number])
    scores = read_columns(ctx.input(role(source)).shard_path(number), ["score"]).column("score").to_numpy()[at]
    if best.by is None:
        return best_first(scores), pa.nulls(len(at), pa.string())
    languages = read_columns(documents.shard_path(number), [best.by]).column(best.by).combine_chunks()
    return best_first(scores), languages.take(pa.array(at))


def role(source: str) -> str:
    """The input with the scores of a source's documents."""
    return f"quality-{source}"


def _name(source: str, shard: int) -> str:
    return f"ranked-{source}-{shard:05d}.npy"


def cut(sequence: SequenceParameters, ctx: TaskContext) -> dict[str, Any]:
    """Where the groups of each source end.

    Raises:
        UserError: no document of a source is good enough.
    """
    found = {}
    for name, best in sequence.selected.items():
        told = [result["groups"][name] for result in ctx.results("rank")]
        tables = open_tables([ctx.scratch("rank", _name(name, shard)) for shard in range(len(told))], told)
        ended = cuts(tables, Budget(best.top, best.tokens, best.above))
        if not any(one.taken for one in ended.values()):
            raise UserError(
                f"No document of {name!r} has a score of {best.above:g} or more.",
                f"stages.{sequence.stage}.sources.{name}.quality",
                "Lower `above`, or take the `top` instead.",
            )
        found[name] = [{"group": group, "cut": one.score, **asdict(one)} for group, one in ended.items()]
    return {"sources": found}


def counts_of_best(ctx: TaskContext) -> dict[str, SourceCount]:
    """The size of what is taken of each such source, before slices."""
    counts = {}
    for name, groups in ctx.results("best")[0]["sources"].items():
        documents = sum(group["taken"] for group in groups)
        counts[name] = SourceCount(sum(group["reached"] for group in groups) - documents, documents)
    return counts


def taken(sequence: SequenceParameters, ctx: TaskContext, number: int, shard: TokenShard) -> npt.NDArray[np.bool_]:
    """Which documents of a shard are good enough for the stage, as far as that is asked of their source: bool[n]."""
    good = np.ones(len(shard.rows), dtype=bool)
    names = ctx.input("tokens").manifest.extra["sources"]
    told: Mapping[str, Any] = ctx.results("best")[0]["sources"] if sequence.selected else {}
    for name, best in sequence.selected.items():
        mine = shard.source == names.index(name)
        keys, groups = _scores(ctx, number, name, best, shard)
        good[mine] = False
        coded = groups.dictionary_encode()
        present = [*coded.dictionary.to_pylist(), None]
        codes = coded.indices.fill_null(len(present) - 1).to_numpy(zero_copy_only=False)
        for one in told[name]:
            if one["group"] in present:
                end = Cut(**{field.name: one[field.name] for field in fields(Cut)})
                good |= mine & (codes == present.index(one["group"])) & end.takes(keys, shard.rows)
    return good
