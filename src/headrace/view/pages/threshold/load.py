"""What another value of a limit would change."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from headrace.view.chosen import duplicates_at
from headrace.view.limits import NEAR, Limit, limits_of
from headrace.view.moves import Move, Plan, moves, plan
from headrace.view.page import Query
from headrace.view.target import Missing, Target

BINS = 48
STOPS = 200  # positions of the slider
MOST = 1e15  # of what is measured: doubles hold whole numbers up to there
LOGARITHMIC = 100  # times that the largest value exceeds the smallest, for an axis of powers


class Threshold(Query):
    """Which limit, and its new value."""

    limit: Annotated[str, Field(max_length=300)] = ""
    value: Annotated[float, Field(allow_inf_nan=False, ge=-MOST, le=MOST)] | None = None


@dataclass(frozen=True)
class About:
    """A limit: see :class:`headrace.view.limits.Limit`."""

    path: str
    reason: str
    value: float
    about: str
    measured: str
    least: bool
    integral: bool
    sources: list[str]


@dataclass(frozen=True)
class Bin:
    """Documents whose measure is from ``low`` to below ``high``."""

    low: float
    high: float
    documents: int


@dataclass(frozen=True)
class Shown:
    """What the page shows.

    Attributes:
        limits: all limits of the recipe.
        limit: the one that is moved; None if none is chosen.
        value: its new value.
        moves: what that would change, by source; None while documents are counted.
        bins: the documents that the limit judges, by what is measured.
        stops: positions of the slider, ascending.
        counted_tokens: whether tokens are known.
        only_a_run: why the sidecars cannot tell, if so.
        below: then, the copies that were removed at a similarity below the new value; None while they are counted.
    """

    limits: list[About]
    limit: About | None
    value: float
    moves: list[Move] | None
    bins: list[Bin]
    stops: list[float]
    counted_tokens: bool
    only_a_run: str | None
    below: int | None = 0


def load(target: Target, query: Threshold) -> Shown:
    """Look it up; documents are counted in the background, once for a limit."""
    limits = limits_of(target.recipe)
    told = [_about(one) for one in limits.values()]
    near = target.recipe.deduplicate.near if target.recipe.deduplicate is not None else None
    if near is not None:
        told.append(_about_near(near.threshold, list(target.recipe.sources)))
    if query.limit == NEAR and near is not None:
        return _near(target, told, near.threshold if query.value is None else query.value)
    if not query.limit:
        return Shown(told, None, 0, None, [], [], False, None)
    if query.limit not in limits:
        fix = f"The limits are {', '.join(one.path for one in told) or 'none'}."
        raise Missing(f"The recipe's filters have no limit {query.limit!r}.", str(target.path), fix)
    limit = limits[query.limit]
    value = limit.value if query.value is None else limit.permitted(query.value)
    plans = target.later(("plan", limit.path), lambda: plan(target, limit))
    if plans is None:
        return Shown(told, _about(limit), value, None, [], [], False, None)
    edges = _edges(limit, plans, value)
    known = any(one.known for one in plans)
    bins, stops = _bins(limit, plans, edges), _stops(limit, edges)
    return Shown(told, _about(limit), value, moves(target, limit, plans, value), bins, stops, known, None)


def _about(limit: Limit) -> About:
    sources = sorted(limit.sources)
    return About(
        limit.path, limit.reason, limit.value, limit.about, limit.measured, limit.least, limit.integral, sources
    )


WHY_NOT = (
    "Only a run can tell what another threshold would keep: it decides which documents are compared at all, by the "
    "bands of their signatures, and which of a group stay depends on all others. Run the recipe with "
    f"`--set {NEAR}=...` and compare the two runs; documents are neither read nor measured again."
)


def _about_near(threshold: float, sources: list[str]) -> About:
    measured = "similarity to the copy that was kept"
    return About(NEAR, "duplicate", threshold, "Similarity of near copies", measured, False, False, sources)


def _near(target: Target, told: list[About], value: float) -> Shown:
    """What the sidecars know of the threshold of near copies: how similar those are that were removed."""
    about = told[-1]
    threshold = about.value
    value = min(max(value, 0.0), 1.0)
    found = target.later("similarities", lambda: duplicates_at(target))
    if found is None or not len(found):
        return Shown(told, about, value, None, [], [], False, WHY_NOT, None if found is None else 0)
    edges = np.linspace(min(threshold, float(found[0])), 1, BINS // 2 + 1)
    counts = np.histogram(found, edges)[0].tolist()
    bins = [Bin(*one) for one in zip(edges[:-1].tolist(), edges[1:].tolist(), counts, strict=True)]
    stops = [float(v) for v in np.round(np.linspace(edges[0], 1, STOPS), 3)]
    return Shown(told, about, value, None, bins, stops, False, WHY_NOT, int(np.searchsorted(found, value)))


def _raw(limit: Limit, keys: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(limit.key(keys))


def _edges(limit: Limit, plans: list[Plan], value: float) -> npt.NDArray[np.float64]:
    """The edges of bins: of equal width, or equal ratio where values differ by orders of magnitude."""
    finite = [keys[np.isfinite(keys)] for keys in (_raw(limit, one.judged.keys) for one in plans)]
    ends = [v for keys in finite if len(keys) for v in (keys.min(), keys.max())] + [value, limit.value]
    low, high = min(ends), max(ends)
    if limit.range == (0, 1):
        return np.linspace(0, 1, BINS + 1)
    if low >= 0 and high > LOGARITHMIC * max(low, 1):
        first = max(low, 1.0)
        edges = np.concatenate([[0.0], np.geomspace(first, max(high, first * 2), BINS)])
    else:
        edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    if limit.integral:
        edges = np.unique(np.concatenate([np.floor(edges[:-1]), [math.floor(edges[-1]) + 1]]))
    return edges


def _bins(limit: Limit, plans: list[Plan], edges: npt.NDArray[np.float64]) -> list[Bin]:
    counts = np.zeros(len(edges) - 1, dtype=np.int64)
    for one in plans:
        values = _raw(limit, one.judged.keys)
        documents = np.diff(one.judged.documents)
        inside = np.isfinite(values)
        at = np.clip(np.searchsorted(edges, values[inside], side="right") - 1, 0, len(counts) - 1)
        counts += np.bincount(at, documents[inside], minlength=len(counts)).astype(np.int64)
    return [Bin(*one) for one in zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True)]


def _stops(limit: Limit, edges: npt.NDArray[np.float64]) -> list[float]:
    """Values between the edges, and the one in force."""
    places = np.linspace(0, len(edges) - 1, STOPS)
    values = np.interp(places, np.arange(len(edges)), edges)
    values = np.floor(values) if limit.integral else np.round(values, 3 if limit.range == (0, 1) else 2)
    values = np.clip(values, *limit.range)
    return [float(v) for v in np.unique(np.append(values, limit.value))]
