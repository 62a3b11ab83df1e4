"""What the viewer says would move is what moves when the recipe is run with the other limit."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from cleaned_run import make, write_corpus

from headrace.flow.artifact import Artifact
from headrace.view.limits import limits_of
from headrace.view.moves import moves, plan
from headrace.view.target import Target

VERIFIED = ("deduplicate.near.verify=true",)
EXACT = ("deduplicate.near=null",)
NONE = ("deduplicate.keep=none",)
BOTH = ("deduplicate=null", "split.check=near")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("moves") / "corpus")


@pytest.fixture(scope="module")
def opened(recipe):
    """Runs by what they set, each made once: with another limit, from what the run without it has built."""
    made: dict[tuple[str, ...], Target] = {}

    def run(base: tuple[str, ...], *more: str) -> Target:
        overrides = (*base, *more)
        if overrides not in made:
            folder = recipe.parent / f"run{len(made)}"
            if more:
                shutil.copytree(run(base).path, folder)
            made[overrides] = Target(make(recipe, folder, overrides, "verdicts" if more else "tokens"))
        return made[overrides]

    return run


def column(made: Artifact, name: str) -> list:
    return [v for s in range(len(made.shards)) for v in pq.read_table(made.shard_path(s))[name].to_pylist()]


def kept(target: Target) -> dict[int, bool]:
    return dict(enumerate(column(target.artifact("verdicts"), "keep")))


def tokens(target: Target, rows: set[int]) -> int:
    from headrace.tokens.store import open_shard

    store = [open_shard(target.artifact("tokens"), s) for s in range(len(target.documents.shards))]
    return sum(
        int(n) for shard in store for row, n in zip(shard.rows, np.diff(shard.offsets), strict=True) if int(row) in rows
    )


LIMITS = [
    ("filters.short.min_characters", (0, 60, 119, 121, 200, 300)),
    ("filters.short.sources.code.min_characters", (0, 90, 200)),
    ("filters.code.max_line", (100, 250, 400)),
    ("filters.code.mean_line", (50.5, 150, 300)),
    ("filters.code.min_alphabetic", (0.1, 0.5, 0.7)),
    ("filters.rules.wordy.0", (5, 20)),
    ("decontaminate.overlap", (0.1, 0.25, 0.5, 0.75, 1.0)),
]


# Each value is a run.
QUICK = ("filters.short.min_characters", "filters.rules.wordy.0", "decontaminate.overlap")
CASES = [pytest.param((), path, values[-2:], id=f"{path} quick") for path, values in LIMITS if path in QUICK]
CASES += [pytest.param((), path, values, marks=pytest.mark.slow) for path, values in LIMITS]
CASES += [
    pytest.param(base, path, values[-2:], marks=pytest.mark.slow)
    for base in (NONE, EXACT)
    for path, values in LIMITS[:3]
]


@pytest.mark.parametrize(("base", "path", "values"), CASES)
def test_what_would_move_is_what_moves(opened, base, path, values):
    target = opened(base)
    limit, others = limits_of(target.recipe)[path], limits_of(target.recipe).values()
    plans, now, moved = plan(target, limit), kept(target), 0
    source = column(target.documents, "source")
    for value in values:
        override = f"{path}={value}"
        if path == "filters.rules.wordy.0":
            override = f"filters.rules.wordy.keep=words > {value} and characters / words < 40"
        run = opened(base, override)
        then = kept(run)
        for move in moves(target, limit, plans, value):
            own = {row for row in now if source[row] == move.source}
            lost, gained = {row for row in own if now[row] > then[row]}, {row for row in own if then[row] > now[row]}
            counts = run.artifact("verdicts").manifest.counts[move.source]
            assert (move.lost, move.gained, move.unsure) == (len(lost), len(gained), 0), (value, move)
            assert move.kept - move.lost + move.gained == counts["kept"]
            assert move.lost_tokens == tokens(target, lost)
            alone = [one.path for one in others if one.reason == limit.reason and move.source in one.sources] == [path]
            if alone:
                assert move.removed == counts["removed"].get(limit.reason, 0), (value, move)
            moved += len(lost) + len(gained)
    assert moved, "no value moved anything"


def test_the_value_in_force_moves_nothing(opened):
    for base in ((), VERIFIED, BOTH):
        target = opened(base)
        for limit in limits_of(target.recipe).values():
            for move in moves(target, limit, plan(target, limit), limit.value):
                assert (move.lost, move.gained, move.unsure) == (0, 0, 0), (base, limit.path)


@pytest.mark.parametrize("base", [VERIFIED, BOTH], ids=["verified", "check"])
def test_what_sidecars_do_not_tell_is_bounded(opened, base):
    """Where texts decide, what is said to move does, and what moves besides is among the documents set apart."""
    target, path = opened(base), "filters.short.min_characters"
    limit = limits_of(target.recipe)[path]
    now, apart = kept(target), 0
    for value in (60, 200):
        then = kept(opened(base, f"{path}={value}"))
        told = moves(target, limit, plan(target, limit), value)
        lost = sum(now[row] and not then[row] for row in now)
        gained = sum(then[row] and not now[row] for row in now)
        said = [sum(getattr(move, name) for move in told) for name in ("lost", "gained", "unsure")]
        assert said[0] <= lost
        assert said[1] <= gained
        assert lost - said[0] + gained - said[1] <= said[2]
        apart += said[2]
    assert apart
