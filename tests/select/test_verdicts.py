"""Verdicts against a plain implementation, and the laws they must keep whatever the recipe."""

from __future__ import annotations

import json
import random
from functools import lru_cache
from typing import Any

import duplicate_graph as graph
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_duplicates import WORDS, fingerprints, reference, shingle_hashes, sketch

from headrace.flow.keys import keyed, parse_ids, salt, unit
from headrace.recipe.schema import Near, Recipe, Split
from headrace.select.clean import clean_text
from headrace.select.duplicates.jaccard import text_jaccard
from headrace.select.duplicates.step import Duplicates
from headrace.select.measures.step import Measures
from headrace.select.verdicts import deduplication, partitions, verification
from headrace.select.verdicts import step as module
from headrace.select.verdicts.splits import SPLITS, draw
from headrace.select.verdicts.step import Verdicts
from quick import quick

SOURCES = ("web", "code", "talk")
NEAR = {"unit": "words", "ngram": 2, "values": 16, "bands": 8, "rows": 2, "threshold": 0.8}


def recipe_of(**sections: Any) -> Recipe:
    sources = {name: {"files": ["*.txt"]} for name in SOURCES}
    return Recipe.model_validate({"name": "test", "seed": 5, "sources": sources, **sections})


def steps_of(recipe: Recipe, rows: list[dict[str, Any]], shard_rows: int = 7) -> Verdicts:
    documents = graph.Given(rows, SOURCES, shard_rows)
    measures = Measures(documents) if recipe.filters.short else None
    duplicates = Duplicates.of(recipe, documents) if recipe.deduplicate or recipe.split.check else None
    return Verdicts.of(recipe, documents, measures, duplicates)


def corpus(seed: int, families: int) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    rows = []
    for _ in range(families):
        base = rng.choices(WORDS, k=rng.choice([0, 1, 4, 12, 40]))
        for _ in range(rng.choice([1, 1, 2, 5])):
            words = [rng.choice(WORDS) if rng.random() < 0.03 else word for word in base]
            words += rng.choices(WORDS, k=rng.choice([0, 0, 0, 6]))
            rows.append({"text": " ".join(words), "source": rng.choice(SOURCES)})
    rng.shuffle(rows)
    return [{**row, "origin_file": f"dir/é{n % 3}.txt", "origin_row": n * 10} for n, row in enumerate(rows)]


@lru_cache(maxsize=1 << 12)
def bands(text: str, near: Near) -> frozenset[tuple[int, int]]:
    hashes = shingle_hashes(text, near.ngram, near.unit == "words")
    return frozenset(enumerate(fingerprints(sketch(hashes, near.values), near.bands, near.rows)) if hashes else ())


def expected(recipe: Recipe, rows: list[dict[str, Any]]) -> tuple[list[str | None], list[dict | None], list[str]]:
    """Reason, evidence and split of each document, straight from the rules."""
    texts = [row["text"] for row in rows]
    ids = parse_ids([graph.content_id(text.encode()) for text in texts])
    u = unit(keyed(salt(recipe.seed, "holdout"), ids))
    split, test = recipe.split, recipe.split.test
    splits = ["test" if x < test else "validation" if x < test + split.validation else "train" for x in u]
    key = keyed(salt(recipe.seed, "elect"), ids)
    reason: list[str | None] = [None if text else "empty" for text in texts]
    evidence: list[dict | None] = [None] * len(rows)
    if recipe.filters.short:
        for i, text in enumerate(texts):
            if text and len(clean_text(text)) < recipe.filters.short.min_characters:
                reason[i] = "short"
                evidence[i] = {"clean_length": len(clean_text(text)), "limit": recipe.filters.short.min_characters}
    wanted = recipe.deduplicate
    asked = Duplicates.of(recipe, graph.Given(rows, SOURCES))
    component, _ = reference(texts, asked.signatures.near, asked.exact)
    near = wanted.near if wanted else None
    verify = near is not None and near.verify
    order = [*(wanted.priority if wanted else ()), *SOURCES]

    def told(of: int, by: int, jaccard: float | None) -> dict:
        known = {
            "kept_id": graph.content_id(texts[by].encode()),
            "kept_row": by,
            "kept_source": rows[by]["source"],
            "kept_file": rows[by]["origin_file"],
            "kept_origin_row": rows[by]["origin_row"],
            "method": "exact" if texts[of] == texts[by] else "minhash",
            "component_size": component.count(component[of]),
        }
        return known if jaccard is None else {**known, "jaccard": round(jaccard, 6)}

    def similarity(a: int, b: int) -> float:
        return 1.0 if texts[a] == texts[b] else text_jaccard(texts[a], texts[b], near.ngram, near.unit)

    left = [i for i in range(len(rows)) if reason[i] is None]
    groups: dict[Any, list[int]] = {}
    for i in left:
        groups.setdefault(component[i] if near else texts[i], []).append(i)
    for group in groups.values() if wanted and (near or wanted.exact) else ():
        group.sort(key=lambda i: (order.index(rows[i]["source"]), -len(texts[i].encode()), int(key[i]), i))
        kept: list[int] = []
        for i in group:
            if verify:
                candidates = [k for k in kept if texts[k] == texts[i] or bands(texts[k], near) & bands(texts[i], near)]
                alike = [k for k in candidates if similarity(i, k) >= near.threshold]
            else:
                alike = kept
            if alike:
                reason[i] = "duplicate"
                evidence[i] = told(i, alike[0], similarity(i, alike[0]) if verify else None)
            else:
                kept.append(i)
    left = [i for i in left if reason[i] is None]
    for i in [i for i in left if splits[i] == "train"] if split.check else ():
        others = [j for j in left if splits[j] != "train"]
        if split.check == "exact":
            others = [j for j in others if texts[i] == texts[j]]
        else:
            others = [j for j in others if component[i] == component[j]]
        if verify and split.check == "near":
            others = [j for j in others if bands(texts[i], near) & bands(texts[j], near)]
            assert all(similarity(i, j) < near.threshold for j in others)
        elif others:
            reason[i], evidence[i] = "holdout", {**told(i, min(others), None), "kept_split": splits[min(others)]}
    return reason, evidence, splits


def check(artifact, recipe: Recipe, rows: list[dict[str, Any]]) -> list[str | None]:
    reason, evidence, splits = expected(recipe, rows)
    table = graph.read(artifact)
    assert table.column("reason").to_pylist() == reason
    assert table.column("keep").to_pylist() == [r is None for r in reason]
    assert table.column("split").to_pylist() == splits
    got = [None if e is None else json.loads(e) for e in table.column("evidence").to_pylist()]
    assert got == evidence
    counts = artifact.manifest.counts
    for source in SOURCES:
        mine = [i for i, row in enumerate(rows) if row["source"] == source]
        count = counts[source]
        assert count["documents"] == len(mine) == count["kept"] + sum(count["removed"].values())
        assert count["removed"] == {
            r: n for r in ("empty", "short", "duplicate", "holdout") if (n := sum(reason[i] == r for i in mine))
        }
        assert count["splits"] == {s: sum(splits[i] == s and reason[i] is None for i in mine) for s in SPLITS}
    for name, why in (("duplicates", "duplicate"), ("holdout", "holdout")):
        pairs: dict[tuple[str, str], int] = {}
        for i, row in enumerate(rows):
            if reason[i] == why:
                pair = (row["source"], evidence[i]["kept_source"])
                pairs[pair] = pairs.get(pair, 0) + 1
        told = artifact.manifest.extra.get(name, [])
        assert {(p["removed"], p["kept"]): p["documents"] for p in told} == pairs
    return reason


RECIPES = {
    "near": {"deduplicate": {"near": NEAR}},
    "verified": {
        "deduplicate": {"near": {**NEAR, "verify": True}, "priority": ["talk"]},
        "split": {"validation": 0.3, "test": 0.1, "check": "near"},
    },
    "exact": {"deduplicate": {"near": None}, "split": {"validation": 0.3, "check": "exact"}},
    "exact, near check": {"deduplicate": {"near": None}, "split": {"validation": 0.3, "check": "near"}},
    "nothing removed, checked": {"split": {"validation": 0.3, "check": "exact"}},
    "nothing at all": {"split": {"check": None}},
    "exact off": {"deduplicate": {"near": NEAR, "exact": False}, "split": {"check": None}},
    "short ones may not win": {
        "deduplicate": {"near": {**NEAR, "verify": True}, "priority": ["code", "talk"]},
        "filters": {"short": {"min_characters": 20}},
        "split": {"validation": 0.4, "check": "near"},
    },
}


@pytest.mark.parametrize("name", RECIPES)
@settings(max_examples=4)
@given(seed=st.integers(0, 1 << 30), families=st.integers(1, 30))
def test_equal_to_a_plain_implementation(tmp_path_factory, name: str, seed: int, families: int) -> None:
    recipe, rows = recipe_of(**RECIPES[name]), corpus(seed, families)
    artifact = graph.run_steps(tmp_path_factory.mktemp("run"), steps_of(recipe, rows, 25))["verdicts"]
    check(artifact, recipe, rows)


@pytest.mark.parametrize(
    "name", quick(["near", "verified", "short ones may not win", "exact, near check"], "verified", "exact, near check")
)
def test_every_reason_occurs_and_bytes_do_not_depend_on_budget_or_retries(tmp_path, name, monkeypatch) -> None:
    recipe, rows = recipe_of(**RECIPES[name]), corpus(11, 40)
    want = graph.run_steps(tmp_path / "a", steps_of(recipe, rows))["verdicts"]
    reasons = check(want, recipe, rows)
    assert "duplicate" in reasons
    assert ("holdout" in reasons) == (name == "exact, near check")
    for folder, options in {"small": {"memory": 1 << 12}, "careful": {"careful": True}, "twice": {"repeat": 2}}.items():
        got = graph.run_steps(tmp_path / folder, steps_of(recipe, rows), **options)["verdicts"]
        assert graph.digests(got) == graph.digests(want)
    monkeypatch.setattr(partitions, "PARTITION_BYTES", 2048)
    monkeypatch.setattr(partitions, "MOST_PARTITIONS", 3)
    monkeypatch.setattr(module, "BATCH_BYTES", 100)
    monkeypatch.setattr(module, "BLOCK_SHARE", 1e-6)
    monkeypatch.setattr(verification, "PIECE_BYTES", 300)
    monkeypatch.setattr(deduplication, "CHUNK", 5)
    got = graph.run_steps(tmp_path / "pieces", steps_of(recipe, rows))["verdicts"]
    assert graph.digests(got) == graph.digests(want)


def test_a_threshold_changes_verdicts_and_nothing_before_them() -> None:
    rows = corpus(0, 3)
    a = steps_of(recipe_of(deduplicate={"near": {**NEAR, "verify": True}}), rows)
    b = steps_of(recipe_of(deduplicate={"near": {**NEAR, "verify": True, "threshold": 0.7}}), rows)
    assert a.identity != b.identity
    assert a.duplicates.identity == b.duplicates.identity
    unverified = [
        steps_of(recipe_of(deduplicate={"near": {**NEAR, "threshold": threshold}}), rows) for threshold in (0.6, 0.7)
    ]
    assert unverified[0].identity == unverified[1].identity


def test_splits_are_half_open_stretches_of_the_keyed_hash() -> None:
    ids = np.random.default_rng(0).integers(0, 1 << 63, (20_000, 2)).astype(np.uint64)
    u = unit(keyed(salt(9, "holdout"), ids))
    got = draw(ids, 9, Split(validation=0.2, test=0.1))
    assert (np.array(SPLITS)[got] == np.where(u < 0.1, "test", np.where(u < 0.1 + 0.2, "validation", "train"))).all()
    assert abs((got == 2).mean() - 0.1) < 0.01
    assert (draw(ids, 9, Split(validation=0.0, test=0.0)) == 0).all()
    # A larger share holds out what a smaller one does, and more.
    more = draw(ids, 9, Split(validation=0.0, test=0.3))
    assert (more[got == 2] == 2).all()
