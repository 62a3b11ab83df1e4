"""What would move if the budget of quality did: documents that nothing else removes, in the order of their scores.

Nothing depends on them, so a document is kept from one limit on: a share or a number of tokens that the better ones of
its group come to, or its score.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.documents.store import read_columns
from headrace.flow.artifact import Artifact
from headrace.recipe.quality import Keep
from headrace.select.quality.ranking import best_first
from headrace.view.judged import KEPT, Judged, changed, judged, reasons_of, token_counts, token_rates
from headrace.view.limits import Limit
from headrace.view.reach import Floats, Steps
from headrace.view.target import Target


def scores_in_force(target: Target) -> tuple[Keep, Artifact]:
    """What the recipe keeps by quality, and the scores that the verdicts were given by.

    Raises:
        UserError: the recipe has changed since.
    """
    keep, verdicts = target.recipe.quality.keep, target.artifact("verdicts")
    if keep is None or verdicts is None:
        raise changed(target)
    scores = target.artifacts.get(("quality", target.recipe.quality.named(keep.annotator)))
    same = verdicts.manifest.params.get("quality") == keep.model_dump(mode="json", exclude={"annotator"})
    if scores is None or not same or verdicts.manifest.inputs.get("quality") != scores.manifest.identity:
        raise changed(target)
    return keep, scores


def scores_of(scores: Artifact, shard: int) -> npt.NDArray[np.float32]:
    """The scores of a shard's documents: float32[n], NaN without one."""
    column = read_columns(scores.shard_path(shard), ["score"]).column("score")
    return np.asarray(column.fill_null(float("nan")).to_numpy(), dtype=np.float32)


def ranked(target: Target, limit: Limit) -> tuple[list[Steps], list[Steps]]:
    """By source: the documents that nothing but quality removes, and those of them that are kept, by the limit's key.

    Raises:
        UserError: the recipe has changed since the verdicts.
    """
    keep, scores = scores_in_force(target)
    rates, names = token_rates(target), reasons_of(target)
    mine = names.index(limit.reason) if limit.reason in names else KEPT - 1
    parts: list[tuple[npt.NDArray[Any], ...]] = []
    groups: dict[str | None, int] = {}
    columns = ["bytes", *([keep.by] if keep.by else [])]
    for one in judged(target, columns):
        rows = np.flatnonzero((one.reason == KEPT) | (one.reason == mine))
        size = one.table["bytes"].to_numpy()[rows]
        counted = token_counts(target, one.shard, len(one.source))[rows]
        tokens = np.where(counted >= 0, counted, np.nan_to_num(size * rates[one.source[rows]]))
        by = one.table[keep.by].take(pa.array(rows)).to_pylist() if keep.by else [None] * len(rows)
        group = np.array([groups.setdefault(name, len(groups)) for name in by], dtype=np.int64)
        weight = _weights(target, keep, one, size, rows)
        parts.append(
            (one.source[rows], one.reason[rows] == KEPT, tokens, scores_of(scores, one.shard)[rows], group, weight)
        )
    source, kept, tokens, score, group, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
    keys = np.asarray(limit.key(_measured(keep, score, group, weight)), dtype=np.float64)
    out: tuple[list[Steps], list[Steps]] = ([], [])
    for number in range(len(target.recipe.sources)):
        own = source == number
        out[0].append(Steps.of(keys[own], tokens[own]))
        out[1].append(Steps.of(keys[own & kept], tokens[own & kept]))
    return out


def _weights(
    target: Target, keep: Keep, one: Judged, size: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """What documents count for: bytes, or tokens with their ends."""
    lengths = target.artifact("lengths")
    if keep.tokens is None or lengths is None:
        return size
    return np.asarray(read_columns(lengths.shard_path(one.shard), ["tokens"]).column("tokens").to_numpy()[rows] + 1)


def _measured(
    keep: Keep, score: npt.NDArray[np.float32], group: npt.NDArray[np.int64], weight: npt.NDArray[np.int64]
) -> Floats:
    """What the limit is compared with: the score, or the budget that the better documents of the group come to."""
    if keep.above is not None:
        return np.where(np.isnan(score), -np.inf, score.astype(np.float64))
    totals = np.bincount(group, weight, minlength=1)
    order = np.lexsort((best_first(score), group))
    running = np.cumsum(weight[order])
    starts = np.searchsorted(group[order], np.arange(len(totals)))
    before = running - weight[order] - (running - weight[order])[np.minimum(starts, len(running) - 1)][group[order]]
    out = np.empty(len(score))
    whole = float(weight.sum()) if keep.tokens is not None else 1.0
    out[order] = np.where(totals[group[order]] > 0, before * whole / np.maximum(totals[group[order]], 1), -np.inf)
    return out
