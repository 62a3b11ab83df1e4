"""What would move if a limit did, from the sidecars alone.

For one limit, every document that no other filter removes has an interval of limits within which it is kept: from where
it passes the filter to where another copy of it, preferred to it, passes as well. So what any limit keeps is the
difference of two counts in sorted arrays, and a slider's every position is answered in a millisecond.

Where copies are verified by their texts, or training documents are checked against near copies that are held out, the
sidecars do not tell which documents of a group stay: those of groups that a limit touches are counted apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.documents.store import read_columns
from headrace.errors import UserError
from headrace.flow.keys import keyed, parse_ids, salt
from headrace.view.judged import (
    COPIES,
    KEPT,
    Judged,
    check_filters,
    judged,
    precedence,
    reasons_of,
    token_counts,
    token_rates,
)
from headrace.view.limits import Limit
from headrace.view.otherwise import otherwise_kept
from headrace.view.ranked import ranked, scores_in_force, scores_of
from headrace.view.reach import Floats, Steps, Tally
from headrace.view.target import Target


@dataclass(frozen=True)
class Plan:
    """What is known about the documents of a source that one limit concerns.

    Attributes:
        until: those that are kept from some limit on, at their own key.
        since: the same at the key of the copy that is preferred to them.
        until_now, since_now: of them those that are kept now.
        judged: all that the limit judges: no earlier reason removes them.
        touched_up: groups that the sidecars do not decide, at the smallest key that passes now; counts documents.
        touched_down: at the largest key that does not.
        unsure_now: documents of these groups that are kept now.
        known: whether the tokens are known.
    """

    until: Steps
    since: Steps
    until_now: Steps
    since_now: Steps
    judged: Steps
    touched_up: Steps
    touched_down: Steps
    unsure_now: Steps
    known: bool


@dataclass(frozen=True)
class Move:
    """What a limit would change in a source: documents, and their tokens, which are None if none are known.

    Attributes:
        source: the source.
        kept: documents kept now.
        lost: kept now, and removed then.
        lost_tokens: counted.
        gained: removed now, and kept then.
        gained_tokens: estimated from their bytes.
        removed: what the filter itself would remove.
        unsure: further documents in groups of near copies that the limit touches: only a run tells about these.
    """

    source: str
    kept: int
    lost: int
    lost_tokens: int | None
    gained: int
    gained_tokens: int | None
    removed: int
    unsure: int


def moves(target: Target, limit: Limit, plans: list[Plan], value: float) -> list[Move]:
    """What a value of a limit would change, by source.

    Args:
        target: the run.
        limit: the limit.
        plans: from :func:`plan`.
        value: the new value.
    """
    verdicts = target.artifact("verdicts")
    assert verdicts is not None
    told = []
    for source, plan in zip(target.recipe.sources, plans, strict=True):
        now, then = (plan.until.reach(limit, v) - plan.since.reach(limit, v) for v in (limit.value, value))
        left = plan.until_now.reach(limit, limit.value) - plan.until_now.reach(limit, value)
        replaced = plan.since_now.reach(limit, value) - plan.since_now.reach(limit, limit.value)
        lost = np.maximum(left, 0) + np.maximum(replaced, 0)
        gained = then - now + lost
        unsure_lost = np.maximum(plan.unsure_now.reach(limit, limit.value) - plan.unsure_now.reach(limit, value), 0)
        up = plan.touched_up.reach(limit, limit.value) - plan.touched_up.reach(limit, value)
        down = plan.touched_down.reach(limit, value) - plan.touched_down.reach(limit, limit.value)
        touched = np.maximum(up, 0) + np.maximum(down, 0)
        gone = plan.judged.documents[-1] - plan.judged.reach(limit, value)[0]
        lost = lost + unsure_lost
        told.append(
            Move(
                source,
                int(verdicts.manifest.counts[source]["kept"]),
                int(lost[0]),
                round(float(lost[1])) if plan.known else None,
                int(gained[0]),
                round(float(gained[1])) if plan.known else None,
                int(gone),
                int(touched[0] - unsure_lost[0]),
            )
        )
    return told


COPY = np.dtype(
    [
        ("key", "<f8"),
        ("tokens", "<f8"),
        ("row", "<i8"),
        ("component", "<i8"),
        ("group", "<i8"),  # what one document is kept of
        ("bytes", "<i8"),
        ("elect", "<u8"),
        ("priority", "<u2"),
        ("source", "<u2"),
        ("kept", "?"),
    ]
)
"""A document that no other filter removes and that has copies, with what the choice of the one to keep depends on
(:func:`headrace.select.verdicts.representatives.describe`)."""


def plan(target: Target, limit: Limit) -> list[Plan]:
    """Read what decides about a limit, for each source: sidecars as a whole, so this takes seconds for a large run.

    Raises:
        UserError: the recipe has changed since, or the verdicts in force do not follow from the sidecars.
    """
    check_filters(target)
    if limit.reason == "quality":
        return _ranked(target, limit)
    keep = target.recipe.quality.keep
    if keep is not None and keep.above is None:
        raise UserError(
            "What another limit would keep is ranked by quality with all others, which only a run can tell.",
            str(target.path),
            f"Run the recipe with `--set {limit.path}=...`; documents are neither read nor scored again.",
        )
    rates = token_rates(target)
    duplicates, sources = target.artifact("duplicates"), [_Source() for _ in target.recipe.sources]
    room = np.empty(0 if duplicates is None else duplicates.manifest.counts["members"], dtype=COPY)
    count = 0
    for one in judged(target, _columns(target, limit)):
        found = _judge(target, limit, one, rates, sources)
        room[count : count + len(found)] = found
        count += len(found)
    copies = room[:count]
    policy = _policy(target)
    since, never = np.full(len(copies), -np.inf), np.zeros(len(copies), dtype=bool)
    unsure = never.copy()
    if policy["verify"] is not None or (policy["split"]["check"] == "near" and policy["remove"] != "component"):
        _, group, counts = np.unique(copies["component"], return_inverse=True, return_counts=True)
        unsure = counts[group] > 1
    if policy["remove"] is not None and policy["verify"] is None:
        since = _preferred(copies, policy.get("keep") == "none")
        never = np.isin(copies["group"], _referenced(target, policy)) | (since >= copies["key"])
    plans = []
    for number, source in enumerate(sources):
        mine = copies["source"] == number
        sure = mine & ~never & ~unsure
        now, kept_alone = sure & copies["kept"], source.until_now.documents
        for tally, which in ((source.until, sure), (source.until_now, now)):
            tally.add(copies["key"][which], copies["tokens"][which])
        up, down = _touched(copies[unsure], number, limit)
        plans.append(
            Plan(
                source.until.steps(),
                Steps.of(since[sure], copies["tokens"][sure]),
                source.until_now.steps(),
                Steps.of(since[now], copies["tokens"][now]),
                source.judged.steps(),
                up,
                down,
                Steps.of(*(copies[name][mine & unsure & copies["kept"]] for name in ("key", "tokens"))),
                bool(not np.isnan(rates[number])),
            )
        )
        told = plans[-1].until.reach(limit, limit.value) - plans[-1].since.reach(limit, limit.value)
        if told[0] != np.count_nonzero(now) + kept_alone:
            raise UserError(
                "The sidecars do not give the verdicts in force, so they cannot tell what another limit would do.",
                str(target.path),
                f"Run the recipe with `--set {limit.path}=...`.",
            )
    return plans


def _ranked(target: Target, limit: Limit) -> list[Plan]:
    """The plan of a budget of quality: nothing else depends on it."""
    rates, none = token_rates(target), Steps.of(np.empty(0), np.empty(0))
    return [
        Plan(every, none, now, none, every, none, none, none, bool(not np.isnan(rate)))
        for every, now, rate in zip(*ranked(target, limit), rates, strict=True)
    ]


class _Source:
    """The documents of a source, by key: see :class:`Plan`."""

    def __init__(self) -> None:
        self.judged, self.until, self.until_now = Tally(), Tally(), Tally()


def _policy(target: Target) -> dict[str, Any]:
    verdicts = target.artifact("verdicts")
    assert verdicts is not None
    params: dict[str, Any] = verdicts.manifest.params
    return params


def _columns(target: Target, limit: Limit) -> list[str]:
    """The columns that decide about a limit."""
    copies = ["component", "exact_of"] if target.artifact("duplicates") is not None else []
    return ["id", "bytes", *copies, *limit.columns]


def _judge(target: Target, limit: Limit, one: Judged, rates: Floats, sources: list[_Source]) -> npt.NDArray[np.void]:
    """Count the documents of a shard that no earlier reason removes; those that have copies are returned, COPY[n]."""
    reasons, order = reasons_of(target), precedence(target)
    place = order.index(limit.reason)
    earlier = np.array([order.index(reason) < place for reason in reasons] + [False], dtype=bool)
    left = np.array([reason in COPIES for reason in reasons] + [True], dtype=bool)  # the last is for KEPT
    keys, alive = limit.keys(one.table, one.source, list(target.recipe.sources)), left[one.reason]
    mine = reasons.index(limit.reason) if limit.reason in reasons else KEPT - 1
    freed = np.flatnonzero((one.reason == mine) & np.isfinite(keys))
    alive[freed] = otherwise_kept(target, limit, one, freed)
    if (keep := target.recipe.quality.keep) is not None and keep.above is not None:
        alive &= scores_of(scores_in_force(target)[1], one.shard) >= np.float32(keep.above)
    size, counted = one.table["bytes"].to_numpy(), token_counts(target, one.shard, len(one.source))
    tokens = np.where(counted >= 0, counted, np.nan_to_num(size * rates[one.source]))
    component = np.full(len(keys), -1, dtype=np.int64)
    if "component" in one.table:
        component = one.table["component"].cast(pa.int64()).fill_null(-1).to_numpy()
    alone = alive & (component < 0)
    kept = one.reason == KEPT
    for number, source in enumerate(sources):
        own = one.source == number
        judges, stays = own & ~earlier[one.reason] & (keys < np.inf), own & alone
        source.judged.add(keys[judges], tokens[judges])
        source.until.add(keys[stays], tokens[stays])
        source.until_now.add(keys[stays & kept], tokens[stays & kept])
    return _copies(target, one, np.flatnonzero(alive & (component >= 0)), (keys, tokens, component))


def _copies(
    target: Target, one: Judged, which: npt.NDArray[np.int64], found: tuple[Floats, Floats, npt.NDArray[np.int64]]
) -> npt.NDArray[np.void]:
    """The documents of a shard that have copies, given keys, tokens and components of all."""
    made, policy = np.empty(len(which), dtype=COPY), _policy(target)
    made["key"], made["tokens"], made["component"] = (values[which] for values in found)
    made["row"], made["source"] = one.first + which, one.source[which]
    made["bytes"], made["kept"] = one.table["bytes"].to_numpy()[which], one.reason[which] == KEPT
    made["group"] = made["component"]
    if len(which) and policy["remove"] != "component":
        exact = one.table["exact_of"].cast(pa.int64()).fill_null(-1).to_numpy()[which]
        made["group"] = np.where(exact >= 0, exact, made["row"])
    ranks = np.array([policy["priority"].index(name) for name in target.recipe.sources], dtype=np.int64)
    made["priority"] = ranks[made["source"]]
    made["elect"] = keyed(salt(policy["seed"], "elect"), parse_ids(one.table["id"].take(pa.array(which))))
    return made


def _preferred(copies: npt.NDArray[np.void], none_stays: bool) -> Floats:
    """For each copy, the largest key of those of its group that are preferred to it; if none of a group of copies
    stays, of all others."""
    best, keys = np.empty(len(copies)), copies["key"]
    if none_stays:
        order = np.lexsort([-keys, copies["group"]])
        best[order] = _others(_begins(copies["group"][order]), keys[order])
        return best
    order = np.lexsort([copies["row"], copies["elect"], -copies["bytes"], copies["priority"], copies["group"]])
    first = _begins(copies["group"][order])
    distinct, rank = np.unique(keys[order], return_inverse=True)
    # Running maxima within each group: the ranks of a later group are above all of an earlier one.
    base = (np.cumsum(first) - 1) * (len(distinct) + 1)
    running = np.maximum.accumulate(base + rank + 1)
    before = np.where(first, 0, np.concatenate([[0], running[:-1]]) - base)
    best[order] = np.where(before > 0, distinct[np.maximum(before, 1) - 1], -np.inf)
    return best


def _begins(groups: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Where a new group begins."""
    first = np.ones(len(groups), dtype=bool)
    first[1:] = groups[1:] != groups[:-1]
    return first


def _others(first: npt.NDArray[np.bool_], key: Floats) -> Floats:
    """The largest key of all others in a group, whose keys descend."""
    starts = np.flatnonzero(first)
    sizes = np.diff(np.append(starts, len(key)))
    largest = np.repeat(key[starts], sizes)
    second = np.where(sizes > 1, key[np.minimum(starts + 1, len(key) - 1)], -np.inf)
    return np.where(first, np.repeat(second, sizes), largest)


def _referenced(target: Target, policy: dict[str, Any]) -> npt.NDArray[np.int64]:
    """The groups that have a reference document: none of their documents is kept."""
    duplicates = target.artifact("duplicates")
    assert duplicates is not None
    name = "component" if policy["remove"] == "component" else "exact_of"
    found = [np.empty(0, dtype=np.int64)]
    for entry in duplicates.manifest.files:
        if entry["name"].startswith("references/"):
            column = read_columns(duplicates.file_path(entry["name"]), [name]).column(0)
            found.append(column.cast(pa.int64()).to_numpy())
    return np.unique(np.concatenate(found))


def _touched(copies: npt.NDArray[np.void], source: int, limit: Limit) -> tuple[Steps, Steps]:
    """Undecided groups at the key where a limit that rises, and one that falls, first touches them; each counts its
    documents of one source."""
    names, group = np.unique(copies["component"], return_inverse=True)
    keys, own = copies["key"], copies["source"] == source
    passing = limit.passes(keys, limit.value)
    up, down = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    np.minimum.at(up, group[passing], keys[passing])
    np.maximum.at(down, group[~passing], keys[~passing])
    none = np.zeros(np.count_nonzero(own))
    return Steps.of(up[group][own], none), Steps.of(down[group][own], none)
