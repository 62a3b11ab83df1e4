"""What another value of a limit would change."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from headrace.view.limits import Limit, limits_of
from headrace.view.moves import Move, Plan, moves, plan
from headrace.view.page import Query
from headrace.view.target import Missing, Target

NEAR = "deduplicate.near.threshold"
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
    """

    limits: list[About]
    limit: About | None
    value: float
    moves: list[Move] | None
    bins: list[Bin]
    stops: list[float]
    counted_tokens: bool
    only_a_run: str | None


def load(target: Target, query: Threshold) -> Shown:
    """Look it up; documents are counted in the background, once for a limit."""
    limits = limits_of(target.recipe)
    told = [_about(one) for one in limits.values()]
    if query.limit == NEAR and target.recipe.deduplicate is not None and target.recipe.deduplicate.near is not None:
        return Shown(told, None, target.recipe.deduplicate.near.threshold, None, [], [], False, _why_not())
    if not query.limit:
        return Shown(told, None, 0, None, [], [], False, None)
    if query.limit not in limits:
        fix = f"The limits are {', '.join(limits) or 'none'}."
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


def _why_not() -> str:
    return (
        "The threshold decides which documents are compared at all (the bands of their signatures), and which one of a "
        "group stays depends on all others. The sidecars hold the groups of one threshold only: run the recipe with "
        f"`--set {NEAR}=...` and compare the two runs. Its signatures are used again."
    )


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
