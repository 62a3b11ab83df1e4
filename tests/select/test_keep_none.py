"""`keep: none`: of documents that have copies none stays, and those without are as they were."""

from __future__ import annotations

import duplicate_graph as graph
import orjson
import pytest
from test_verdicts import corpus, recipe_of, steps_of

WAYS = {
    "exact": {"near": None},
    "near": {"near": {"ngram": 5}},
    "verified": {"near": {"ngram": 5, "verify": True, "threshold": 0.7}},
}


@pytest.mark.parametrize("check", [None, "exact"])
@pytest.mark.parametrize("way", WAYS)
def test_none_of_a_group_stays(tmp_path, way, check) -> None:
    rows = corpus(11, 25)
    split = {"validation": 0.3, "check": check}
    made = {}
    for keep in ("one", "none"):
        recipe = recipe_of(deduplicate={**WAYS[way], "keep": keep}, split=split)
        artifact = graph.run_steps(tmp_path / keep, steps_of(recipe, rows))["verdicts"]
        made[keep] = (graph.read(artifact).to_pylist(), artifact.manifest)
    one, none = made["one"][0], made["none"][0]
    copied = {orjson.loads(verdict["evidence"])["kept_row"] for verdict in one if verdict["reason"] == "duplicate"}
    assert len(copied) > 5
    for row, (before, after) in enumerate(zip(one, none, strict=True)):
        if before["reason"] == "duplicate" or row in copied:
            assert after["reason"] == "duplicate"
        else:
            assert after["reason"] in (before["reason"], None, "holdout")
        if row in copied:
            other = orjson.loads(after["evidence"])
            theirs = orjson.loads(one[other["kept_row"]]["evidence"])
            assert theirs["kept_row"] == row
            assert {name: other.get(name) for name in ("method", "jaccard")} == {
                name: theirs.get(name) for name in ("method", "jaccard")
            }
    removed = sum(counts["removed"].get("duplicate", 0) for counts in made["none"][1].counts.values())
    assert removed == sum(verdict["reason"] == "duplicate" for verdict in none)
    assert sum(pair["documents"] for pair in made["none"][1].extra["duplicates"]) == removed


def test_identity_follows_it() -> None:
    rows = corpus(1, 2)
    one, none = (
        steps_of(recipe_of(deduplicate={"near": None, "keep": keep}), rows).identity for keep in ("one", "none")
    )
    assert one != none
    assert one == steps_of(recipe_of(deduplicate={"near": None}), rows).identity
