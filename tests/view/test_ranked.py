"""What the viewer says a budget of quality would move is what moves when the recipe is run with it."""

from __future__ import annotations

import json
import random

import pytest

from headrace.documents.store import fetch
from headrace.pipeline import run
from headrace.recipe.load import load_recipe
from headrace.view.limits import limits_of
from headrace.view.moves import moves, plan
from headrace.view.target import Target


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("ranked"), random.Random(2)
    words = {True: ["mill", "race", "weir"], False: ["click", "offer", "bonus"]}
    for name, count in (("web", 240), ("books", 90), ("good", 60)):
        rows = []
        for _ in range(count):
            drawn = words[True] * (1 if name == "web" else 3) + words[False] * (0 if name == "good" else 2)
            text = " ".join(rng.choice(drawn) for _ in range(rng.randrange(4, 90)))
            rows.append({"text": f"{text} {rng.random()}", "language": rng.choice(["en", "de"])})
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows + rows[:3]))
    return folder


def opened(folder, out: str, **keep) -> Target:
    sources = {
        name: {"files": str(folder / f"{name}.jsonl"), "fields": {"language": "language"}} for name in ("web", "books")
    }
    recipe = {
        "name": "ranked",
        "sources": sources,
        "deduplicate": {},
        "filters": {"short": {"min_characters": 60}},
        "split": {"validation": 0.0},
        "quality": {"annotators": {"fine": {"positives": str(folder / "good.jsonl"), "curve": []}}, "keep": keep},
        "tokenizer": {"train": {"vocab_size": 300}},
        "stages": [{"name": "one", "sources": {"web": {}}, "sequence_length": 64}],
    }
    run(load_recipe(recipe), folder / out, workers=0, memory=256 << 20, until="verdicts")
    return Target(folder / out)


def kept(target: Target) -> list[tuple[str, bool]]:
    verdicts, documents = target.artifact("verdicts"), target.documents
    rows = list(range(documents.rows))
    keep = fetch(verdicts, rows, ["keep"]).column("keep").to_pylist()
    return list(zip(fetch(documents, rows, ["source"]).column("source").to_pylist(), keep, strict=True))


@pytest.mark.parametrize(("key", "now", "others"), [("share", 0.3, (0.1, 0.55)), ("above", 0.5, (0.2, 0.9))])
def test_what_moves_is_what_a_run_moves(folder, key, now, others):
    target = opened(folder, f"{key}-{now}", **{key: now})
    limit = limits_of(target.recipe)[f"quality.keep.{key}"]
    plans = plan(target, limit)
    before = kept(target)
    assert all(move.lost == move.gained == 0 for move in moves(target, limit, plans, now))
    for value in others:
        after = kept(opened(folder, f"{key}-{value}", **{key: value}))
        for move in moves(target, limit, plans, value):
            pairs = [(a[1], b[1]) for a, b in zip(before, after, strict=True) if a[0] == move.source]
            assert (move.lost, move.gained) == (pairs.count((True, False)), pairs.count((False, True))), value


def test_another_limit_is_told_with_a_least_score_and_left_to_a_run_with_a_share(folder):
    from headrace.errors import UserError

    above, share = opened(folder, "above-0.5", above=0.5), opened(folder, "share-0.3", share=0.3)
    limit = limits_of(above.recipe)["filters.short.min_characters"]
    told = moves(above, limit, plan(above, limit), 200)
    assert sum(move.lost for move in told) > 0
    with pytest.raises(UserError, match="ranked by quality"):
        plan(share, limits_of(share.recipe)["filters.short.min_characters"])
