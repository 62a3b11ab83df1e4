"""What else would remove a document that one filter removes: verdicts name the first reason only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.documents.store import read_columns
from headrace.flow.keys import parse_ids
from headrace.recipe import columns as known
from headrace.recipe.schema import Filters, Recipe, Withdrawn
from headrace.view.judged import Judged, precedence, read_beside
from headrace.view.limits import Limit
from headrace.view.target import Target


def otherwise_kept(target: Target, limit: Limit, one: Judged, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which of some documents that a filter removes no later filter would: they are judged by all of these."""
    from headrace.recipe.expressions import columns
    from headrace.select.verdicts.document_filters import DocumentFilters
    from headrace.select.verdicts.filters import applied, code_sources

    if not len(rows):
        return np.empty(0, dtype=bool)
    recipe = target.recipe
    reasons = precedence(target)
    later = reasons[reasons.index(limit.reason) + 1 :]
    rules = tuple((rule, recipe.expression(rule)) for rule in recipe.filters.rules if f"filter:{rule.name}" in later)
    filters = _only(recipe, later)
    used = {name for _, node in rules for name in columns(node)}
    documents = [name for name in sorted(used) if name in known.DOCUMENT]
    beside: dict[str, pa.Table] = {}
    which = pa.array(rows)
    for (kind, stage), made in target.artifacts.items():
        if kind in ("measures", "measure", "contamination"):
            name = kind if stage is None else f"measure-{stage}"
            beside[name] = read_columns(made.shard_path(one.shard)).take(which).combine_chunks()
    source = pa.array(list(recipe.sources)).take(pa.array(one.source[rows]))
    own = read_beside(target, one.shard, [name for name in documents if name not in ("id", "source")])
    batch = pa.RecordBatch.from_pydict(
        {"id": one.table["id"].take(which), "source": source} | {k: v.take(which) for k, v in own.items()}
    )
    judge = DocumentFilters(
        applied(recipe.model_copy(update={"filters": filters})),
        code_sources(recipe),
        tuple(name for name in recipe.measures if f"failed:{name}" in later),
        rules,
        recipe.decontaminate if "contaminated" in later else None,
        tuple(recipe.sources),
        recipe.split,
        recipe.seed,
        Withdrawn(),
        {},
        None,
    )
    told = judge.apply(batch, parse_ids(batch.column("id")), beside)
    return np.asarray(told.column("reason").is_null().to_numpy(zero_copy_only=False))


def _only(recipe: Recipe, reasons: list[str]) -> Filters:
    """A recipe's filters without those that do not give these reasons."""
    from headrace.select.verdicts.filters import CODE_RULES

    code = recipe.filters.code
    if code is not None:
        off = {
            rule.name: False if isinstance(getattr(code, rule.name), bool) else None
            for rule in CODE_RULES
            if f"filter:{rule.name}" not in reasons
        }
        code = code.model_copy(update=off)
    short = recipe.filters.short if "short" in reasons else None
    return recipe.filters.model_copy(update={"short": short, "code": code})
