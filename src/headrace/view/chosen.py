"""Which removed documents a person looks at: a random sample, or those nearest a limit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.documents.store import read_columns
from headrace.flow.keys import keyed, parse_ids, salt
from headrace.view.judged import KEPT, Judged, check_filters, judged, reasons_of, similarities
from headrace.view.limits import Limit, limits_for
from headrace.view.target import Target

MOST = 1000  # documents in an order: more than anybody labels
Rows = npt.NDArray[np.int64]


def sample(target: Target, reason: str, source: str | None, seed: int) -> Rows:
    """The rows of a random sample of the documents removed for a reason, int64[n], in its order.

    The order is that of a keyed hash of ids, so documents that come later only squeeze in.
    """

    def order(one: Judged, which: Rows) -> npt.NDArray[np.uint64]:
        documents = target.documents
        assert documents is not None
        ids = read_columns(documents.shard_path(one.shard), ["id"]).column(0).combine_chunks()
        return keyed(salt(seed, "sample", reason), parse_ids(ids.take(pa.array(which))))

    return _first(target, reason, source, (), order)


def nearest(target: Target, reason: str, source: str | None) -> Rows:
    """The rows of the removed documents that miss a limit by least: of copies, those that are least similar."""
    if reason == "duplicate":
        return _first(target, reason, source, (), lambda one, which: similarities(target, one.shard)[which])
    check_filters(target)
    limits = limits_for(target.recipe, reason)
    return _first(target, reason, source, _columns(limits), lambda one, which: -_margin(target, limits, one)[which])


def nearly(target: Target, reason: str, source: str | None) -> Rows:
    """The rows of the kept documents that pass a limit by least."""
    check_filters(target)
    limits = limits_for(target.recipe, reason)

    def order(one: Judged, which: Rows) -> npt.NDArray[np.float64]:
        return _margin(target, limits, one)[which]

    return _first(target, None, source, _columns(limits), order)


def duplicates_at(target: Target) -> npt.NDArray[np.float64]:
    """The similarities at which copies were removed, ascending; none if candidates are not verified."""
    reasons = reasons_of(target)
    found = [np.empty(0)]
    if "duplicate" in reasons:
        for one in judged(target):
            found.append(similarities(target, one.shard)[one.reason == reasons.index("duplicate")])
    every = np.concatenate(found)
    return np.sort(every[np.isfinite(every)])


def _columns(limits: list[Limit]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for limit in limits for name in limit.columns))


def _margin(target: Target, limits: list[Limit], one: Judged) -> npt.NDArray[np.float64]:
    """By how much each document passes the nearest of some limits; infinite where none concerns it."""
    names, margin = list(target.recipe.sources), np.full(len(one.source), np.inf)
    for limit in limits:
        found = limit.keys(one.table, one.source, names) - limit.key(limit.value)
        margin = np.minimum(margin, np.where(np.isneginf(found), np.inf, found))
    return margin


def _first(
    target: Target,
    reason: str | None,
    source: str | None,
    columns: tuple[str, ...],
    order: Callable[[Judged, Rows], npt.NDArray[np.generic]],
) -> Rows:
    """The first rows in an order of those judged so; None stands for kept, and infinities are left out."""
    reasons, names = reasons_of(target), list(target.recipe.sources)
    wanted = KEPT if reason is None else reasons.index(reason) if reason in reasons else KEPT - 1
    rows: Rows = np.empty(0, dtype=np.int64)
    keys: npt.NDArray[np.generic] | None = None
    for one in judged(target, columns):
        mine = one.reason == wanted
        if source is not None:
            mine &= one.source == names.index(source)
        which = np.flatnonzero(mine)
        if not len(which):
            continue
        found = order(one, which)
        finite = np.isfinite(found) if found.dtype.kind == "f" else np.ones(len(found), dtype=bool)
        here = one.first + which[finite]
        keys = found[finite] if keys is None else np.concatenate([keys, found[finite]])
        rows = np.concatenate([rows, here])
        best = np.argsort(keys, kind="stable")[:MOST]
        rows, keys = rows[best], keys[best]
    return rows
