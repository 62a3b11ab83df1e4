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
from headrace.flow.keys import keyed, parse_ids, salt
from headrace.recipe import columns as known
from headrace.recipe.schema import Recipe, Withdrawn
from headrace.view.judged import KEPT, Judged, judged, read_beside, reasons_of, token_counts, token_rates
from headrace.view.limits import Limit
from headrace.view.target import Target

Floats = npt.NDArray[np.float64]
COPIES = ("duplicate", "reference", "holdout")  # reasons that depend on other documents


@dataclass(frozen=True)
class Steps:
    """Documents by key: for any limit, how many reach it, and their tokens.

    Attributes:
        keys: float64[k], distinct, ascending.
        documents: int64[k + 1], documents before each.
        tokens: float64[k + 1], their tokens.
    """

    keys: Floats
    documents: npt.NDArray[np.int64]
    tokens: Floats

    @staticmethod
    def of(keys: Floats, tokens: Floats) -> Steps:
        """From each document's key and tokens."""
        distinct, which = np.unique(keys, return_inverse=True)
        counts = np.bincount(which, minlength=len(distinct))
        sums = np.bincount(which, tokens, minlength=len(distinct))
        return Steps(distinct, np.concatenate([[0], np.cumsum(counts)]), np.concatenate([[0.0], np.cumsum(sums)]))

    def reach(self, limit: Limit, value: float) -> npt.NDArray[np.float64]:
        """(documents, tokens) that pass a limit of this value."""
        at = int(np.searchsorted(self.keys, limit.key(value), side="right" if limit.strict else "left"))
        return np.array([self.documents[-1] - self.documents[at], self.tokens[-1] - self.tokens[at]], dtype=np.float64)


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


def plan(target: Target, limit: Limit) -> list[Plan]:
    """Read what decides about a limit, for each source: sidecars as a whole, so this takes seconds for a large run."""
    rates, shards, first = token_rates(target), [], 0
    for one in judged(target, _columns(target, limit)):
        shards.append(_judge(target, limit, one, rates, first))
        first += len(shards[-1][0])
    every = np.concatenate([np.empty(0, dtype=DOCUMENT), *(documents for documents, _ in shards)])
    copies = np.concatenate([np.empty(0, dtype=COPY), *(some for _, some in shards)])
    del shards
    since = np.full(len(every), -np.inf)
    never, unsure = np.zeros(len(every), dtype=bool), np.zeros(len(every), dtype=bool)
    copies = copies[every["alive"][copies["at"]]]
    policy, at = _policy(target), copies["at"]
    if policy["verify"] is not None or (policy["split"]["check"] == "near" and policy["remove"] != "component"):
        _, group, counts = np.unique(copies["component"], return_inverse=True, return_counts=True)
        unsure[at] = counts[group] > 1
    if policy["remove"] is not None and policy["verify"] is None:
        since[at] = _preferred(copies, every["key"][at], policy.get("keep") == "none")
        never[at] = np.isin(copies["group"], _referenced(target, policy)) | (since[at] >= every["key"][at])
    sure = every["alive"] & ~never & ~unsure
    plans = []
    for number in range(len(target.recipe.sources)):
        mine = every["source"] == number

        def steps(which: npt.NDArray[np.bool_], keys: Floats = every["key"]) -> Steps:
            return Steps.of(keys[which], every["tokens"][which])

        now = every["kept"] & mine
        up, down = _touched(copies[unsure[at]], every, number, limit)
        plans.append(
            Plan(
                steps(sure & mine),
                steps(sure & mine, since),
                steps(now & sure),
                steps(now & sure, since),
                steps(mine & (every["key"] < np.inf)),
                up,
                down,
                steps(now & unsure),
                bool(not np.isnan(rates[number])),
            )
        )
    return plans


DOCUMENT = np.dtype([("key", "<f8"), ("tokens", "<f4"), ("source", "<u2"), ("alive", "?"), ("kept", "?")])
"""A document that no earlier reason removes; ``alive`` if no later filter does either. There may be very many."""

COPY = np.dtype(
    [
        ("at", "<i8"),  # among the documents
        ("row", "<i8"),
        ("component", "<i8"),
        ("group", "<i8"),  # what one document is kept of
        ("priority", "<i8"),
        ("bytes", "<i8"),
        ("elect", "<u8"),
    ]
)
"""One of them that has copies, with what the choice of the one to keep depends on
(:func:`headrace.select.verdicts.representatives.describe`)."""


def _policy(target: Target) -> dict[str, Any]:
    verdicts = target.artifact("verdicts")
    assert verdicts is not None
    params: dict[str, Any] = verdicts.manifest.params
    return params


def _columns(target: Target, limit: Limit) -> list[str]:
    """The columns that decide about a limit."""
    copies = ["component", "exact_of"] if target.artifact("duplicates") is not None else []
    return ["id", "bytes", *copies, *limit.columns]


def _judge(
    target: Target, limit: Limit, one: Judged, rates: Floats, first: int
) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void]]:
    """The documents of a shard that no earlier reason removes, DOCUMENT[n], and COPY[m], counted from ``first``."""
    reasons, order = reasons_of(target), precedence(target)
    place = order.index(limit.reason)
    earlier = np.array([order.index(reason) < place for reason in reasons] + [False], dtype=bool)
    left = np.array([reason in COPIES for reason in reasons] + [True], dtype=bool)  # the last is for KEPT
    keys, alive = limit.keys(one.table, one.source, list(target.recipe.sources)), left[one.reason]
    mine = reasons.index(limit.reason) if limit.reason in reasons else KEPT - 1
    freed = np.flatnonzero((one.reason == mine) & np.isfinite(keys))
    alive[freed] = _otherwise_kept(target, limit, one, freed)
    here = np.flatnonzero(~earlier[one.reason])
    size = one.table["bytes"].to_numpy()[here]
    counted = token_counts(target, one.shard, len(one.source))[here]
    documents = np.empty(len(here), dtype=DOCUMENT)
    documents["key"], documents["source"] = keys[here], one.source[here]
    documents["tokens"] = np.where(counted >= 0, counted, np.nan_to_num(size * rates[one.source[here]]))
    documents["alive"], documents["kept"] = alive[here], one.reason[here] == KEPT
    return documents, _copies(target, one, here, size, first)


def _copies(
    target: Target, one: Judged, here: npt.NDArray[np.int64], size: npt.NDArray[np.int64], first: int
) -> npt.NDArray[np.void]:
    if "component" not in one.table:
        return np.empty(0, dtype=COPY)
    component, exact = (one.table[name].cast(pa.int64()).fill_null(-1).to_numpy() for name in ("component", "exact_of"))
    at = np.flatnonzero(component[here] >= 0)
    which = here[at]
    found = np.empty(len(at), dtype=COPY)
    found["at"], found["row"], found["component"] = first + at, one.first + which, component[which]
    found["group"] = np.where(exact[which] >= 0, exact[which], found["row"])
    policy = _policy(target)
    if policy["remove"] == "component":
        found["group"] = found["component"]
    ranks = np.array([policy["priority"].index(name) for name in target.recipe.sources], dtype=np.int64)
    found["priority"], found["bytes"] = ranks[one.source[which]], size[at]
    ids = parse_ids(one.table["id"].take(pa.array(which)))
    found["elect"] = keyed(salt(policy["seed"], "elect"), ids)
    return found


def precedence(target: Target) -> list[str]:
    """All reasons, in order of precedence."""
    from headrace.select.verdicts.filters import reasons

    recipe = target.recipe
    own = [*(f"failed:{name}" for name in recipe.measures), *(f"filter:{rule.name}" for rule in recipe.filters.rules)]
    return ["withdrawn", "opt_out", "license", "empty", *reasons(), *own, "contaminated", *COPIES]


def _otherwise_kept(target: Target, limit: Limit, one: Judged, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
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


def _only(recipe: Recipe, reasons: list[str]) -> Any:
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


def _preferred(copies: npt.NDArray[np.void], keys: Floats, none_stays: bool) -> Floats:
    """For each copy, the largest key of those of its group that are preferred to it; if none of a group of copies
    stays, of all others."""
    best = np.empty(len(copies))
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


def _touched(
    copies: npt.NDArray[np.void], every: npt.NDArray[np.void], source: int, limit: Limit
) -> tuple[Steps, Steps]:
    """Undecided groups at the key where a limit that rises, and one that falls, first touches them; each counts its
    documents of one source."""
    names, group = np.unique(copies["component"], return_inverse=True)
    keys = every["key"][copies["at"]]
    passing = limit.passes(keys, limit.value)
    up, down = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    np.minimum.at(up, group[passing], keys[passing])
    np.maximum.at(down, group[~passing], keys[~passing])
    own = every["source"][copies["at"]] == source
    none = np.zeros(np.count_nonzero(own))
    return Steps.of(up[group][own], none), Steps.of(down[group][own], none)
