"""Reference documents: verdicts against a plain implementation that compares every document with every other."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duplicate_graph as graph
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_verdicts import NEAR, SOURCES, bands, corpus, recipe_of, steps_of

from headrace.flow.keys import keyed, parse_ids, salt
from headrace.recipe.schema import Near, Recipe
from headrace.select.duplicates import step as module
from headrace.select.duplicates.jaccard import text_jaccard
from headrace.select.duplicates.reference import EarlierRun, Reference
from headrace.select.duplicates.step import Duplicates
from headrace.select.verdicts import deduplication, partitions, verification
from headrace.select.verdicts import step as verdicts_module
from headrace.select.verdicts.splits import SPLITS, draw
from headrace.select.verdicts.step import Verdicts
from quick import quick

Rows = list[dict[str, Any]]


@dataclass
class Reading:
    """A set of references as a test knows it: its documents, those that count, and where they come from."""

    rows: Rows
    counted: list[int]
    run: EarlierRun | None = None


def earlier(folder: Path, rows: Rows, deduplicate: dict[str, Any]) -> Reading:
    """A run that is finished."""
    recipe = recipe_of(deduplicate=deduplicate, filters={"short": {"min_characters": 8}})
    made = graph.run_steps(folder, steps_of(recipe, rows, 9))
    keep = graph.read(made["verdicts"]).column("keep").to_pylist()
    wanted = Duplicates.of(recipe, graph.Given(rows, SOURCES)).signatures.params()
    asked = Duplicates.of(recipe_of(deduplicate={"near": NEAR}), graph.Given(rows, SOURCES)).signatures.params()
    signatures = made["signatures"].manifest.identity if wanted == asked else None
    identities = [made[kind].manifest.identity for kind in ("documents", "verdicts")]
    run = EarlierRun(str(folder), *identities, signatures, SOURCES)
    return Reading(rows, [i for i, kept in enumerate(keep) if kept], run)


def from_files(rows: Rows) -> Reading:
    return Reading(rows, list(range(len(rows))))


def judged(recipe: Recipe, rows: Rows, sets: list[Reading], shard_rows: int = 7) -> Verdicts:
    near = recipe.deduplicate.near if recipe.deduplicate else None
    references = []
    for k, reading in enumerate(sets):
        given = None if reading.run else graph.Given(reading.rows, SOURCES, 4)
        references.append(Reference(near, given, reading.run, SOURCES, str(k)))
    documents = graph.Given(rows, SOURCES, shard_rows)
    return Verdicts.of(recipe, documents, duplicates=Duplicates.of(recipe, documents, tuple(references)))


def expected(recipe: Recipe, rows: Rows, sets: list[Reading]) -> list[tuple[str | None, dict | None]]:
    """Reason and evidence of each document, straight from the rules."""
    wanted = recipe.deduplicate
    near, own = wanted.near, len(rows)
    check_near = near is None and recipe.split.check == "near"
    everything = [(None, i, row) for i, row in enumerate(rows)]
    for k, reading in enumerate(sets):
        everything += [(k, i, reading.rows[i]) for i in reading.counted]
    texts = [row["text"] for _, _, row in everything]
    buckets: dict[Any, list[int]] = {}
    for v, text in enumerate(texts):
        if wanted.exact or recipe.split.check:
            buckets.setdefault(text, []).append(v)
        if near is not None or (check_near and v < own):
            for band in bands(text, near or Near()):
                buckets.setdefault(band, []).append(v)
    label = list(range(len(texts)))
    for _ in texts:
        for members in buckets.values():
            if members[0] < own:  # the corpus comes first
                low = min(label[v] for v in members)
                for v in members:
                    label[v] = low
    ids = parse_ids([graph.content_id(text.encode()) for text in texts])
    key = keyed(salt(recipe.seed, "elect"), ids)
    order = [*wanted.priority, *(name for name in SOURCES if name not in wanted.priority)]
    splits = draw(ids, recipe.seed, recipe.split)

    def rank(v: int) -> tuple:
        k, _, row = everything[v]
        first = (0, k) if k is not None else (1, order.index(row["source"]))
        return (*first, -len(texts[v].encode()), int(key[v]), v)

    def alike(a: int, b: int) -> float | None:
        """Whether one is reason to remove the other, and their similarity where that was looked at."""
        if near is None or not near.verify:
            return -1.0
        if texts[a] == texts[b]:
            return 1.0
        jaccard = text_jaccard(texts[a], texts[b], near.ngram, near.unit)
        return jaccard if bands(texts[a], near) & bands(texts[b], near) and jaccard >= near.threshold else None

    def told(v: int, by: int, jaccard: float) -> dict:
        k, i, row = everything[by]
        known = {
            "kept_id": graph.content_id(texts[by].encode()),
            "kept_row": i,
            "kept_source": row["source"],
            "kept_file": row["origin_file"],
            "kept_origin_row": row["origin_row"],
            "method": "exact" if texts[v] == texts[by] else "minhash",
            "component_size": label.count(label[by]),
        }
        known |= {"jaccard": round(jaccard, 6)} if jaccard >= 0 else {}
        return known if k is None else {**known, "against": k}

    found: list[tuple[str | None, dict | None]] = [(None if text else "empty", None) for text in texts[:own]]
    groups: dict[Any, list[int]] = {}
    for v in range(len(texts)):
        if v >= own or texts[v]:
            groups.setdefault(label[v] if near else (texts[v]), []).append(v)
    for group in groups.values():
        kept: list[int] = []
        lost_to: dict[int, tuple[int, float]] = {}
        for v in sorted(group, key=rank):
            others = [] if v >= own else [(k, j) for k in kept if (j := alike(v, k)) is not None]
            if not others:
                kept.append(v)
                continue
            # An exact copy of a reference names that one.
            same = [(k, j) for k, j in others if k >= own and texts[k] == texts[v]]
            by, jaccard = (same if near and near.verify and same else others)[0]
            found[v] = ("reference" if by >= own else "duplicate", told(v, by, jaccard))
            if by < own and (by not in lost_to or v < lost_to[by][0]):
                lost_to[by] = (v, jaccard)
        if wanted.keep == "none":
            for by, (v, jaccard) in lost_to.items():
                found[by] = ("duplicate", told(by, v, jaccard))
    left = [v for v in range(own) if found[v][0] is None]
    for v in left if near is None and recipe.split.check else ():
        others = [w for w in left if splits[w] and (texts[v] == texts[w] if not check_near else label[v] == label[w])]
        if not splits[v] and others:
            evidence = {**told(v, others[0], -1), "kept_split": SPLITS[splits[others[0]]]}
            found[v] = ("holdout", {**evidence, "method": "minhash" if check_near else "exact"})
    return found


def check(artifact, recipe: Recipe, rows: Rows, sets: list[Reading]) -> list[str | None]:
    want = expected(recipe, rows, sets)
    table = graph.read(artifact)
    assert table.column("reason").to_pylist() == [reason for reason, _ in want]
    got = [None if e is None else json.loads(e) for e in table.column("evidence").to_pylist()]
    assert got == [evidence for _, evidence in want]
    pairs: dict[tuple[str, int], int] = {}
    for row, (reason, evidence) in zip(rows, want, strict=True):
        if reason == "reference":
            pairs[row["source"], evidence["against"]] = pairs.get((row["source"], evidence["against"]), 0) + 1
    told = artifact.manifest.extra["references"]
    assert {(p["removed"], p["against"]): p["documents"] for p in told} == pairs
    for name in SOURCES:
        removed = artifact.manifest.counts[name]["removed"].get("reference", 0)
        assert removed == sum(n for (source, _), n in pairs.items() if source == name)
    return [reason for reason, _ in want]


VERIFIED = {"near": {**NEAR, "verify": True, "threshold": 0.6}}
RECIPES = {
    "near": {"deduplicate": {"near": NEAR, "priority": ["talk"]}, "split": {"validation": 0.3}},
    "none": {"deduplicate": {"near": NEAR, "keep": "none"}},
    "verified": {"deduplicate": VERIFIED, "split": {"validation": 0.3, "check": "near"}},
    "verified, none": {"deduplicate": {**VERIFIED, "keep": "none"}},
    "exact": {"deduplicate": {"near": None}, "split": {"validation": 0.3, "check": "exact"}},
    "exact, none": {"deduplicate": {"near": None, "keep": "none"}, "split": {"check": None}},
    "exact off": {"deduplicate": {"near": NEAR, "exact": False}, "split": {"check": None}},
}


def dealt(seed: int, families: int, parts: int) -> list[Rows]:
    """A corpus with copies in it, dealt out, so that copies of each other lie in different parts."""
    rng = random.Random(seed)
    rows = corpus(seed, families)
    where = [n if n < parts else rng.randrange(parts) for n in range(len(rows))]
    return [[row for row, part in zip(rows, where, strict=True) if part == p] for p in range(parts)]


@pytest.mark.parametrize("name", RECIPES)
@settings(max_examples=5)
@given(seed=st.integers(0, 1 << 30), families=st.integers(6, 24))
def test_equal_to_a_plain_implementation(tmp_path_factory, name: str, seed: int, families: int) -> None:
    folder = tmp_path_factory.mktemp("run")
    own, first, second, files = dealt(seed, families, 4)
    sets = [
        earlier(folder / "first", first, {"near": NEAR}),
        from_files(files),
        earlier(folder / "second", second, {"near": {**NEAR, "values": 24}}),
    ]
    recipe = recipe_of(**RECIPES[name])
    artifact = graph.run_steps(folder / "own", judged(recipe, own, sets, 25))["verdicts"]
    check(artifact, recipe, own, sets)


@pytest.mark.parametrize("name", quick(RECIPES, "near", "verified, none", "exact"))
def test_it_occurs_and_bytes_do_not_depend_on_budget_or_retries(tmp_path, name, monkeypatch) -> None:
    own, first, files = dealt(3, 60, 3)
    sets = [earlier(tmp_path / "first", first, {"near": NEAR}), from_files(files)]
    recipe = recipe_of(**RECIPES[name])
    want = graph.run_steps(tmp_path / "a", judged(recipe, own, sets))["verdicts"]
    reasons = check(want, recipe, own, sets)
    assert {"reference", "duplicate", None} <= set(reasons)
    for folder, options in {"small": {"memory": 1 << 12}, "careful": {"careful": True}, "twice": {"repeat": 2}}.items():
        got = graph.run_steps(tmp_path / folder, judged(recipe, own, sets), **options)["verdicts"]
        assert graph.digests(got) == graph.digests(want)
    monkeypatch.setattr(partitions, "PARTITION_BYTES", 2048)
    monkeypatch.setattr(module, "PARTITION_BYTES", 512)
    monkeypatch.setattr(verdicts_module, "BLOCK_SHARE", 1e-6)
    monkeypatch.setattr(verification, "PIECE_BYTES", 300)
    monkeypatch.setattr(deduplication, "CHUNK", 5)
    got = graph.run_steps(tmp_path / "pieces", judged(recipe, own, sets))["verdicts"]
    assert graph.digests(got) == graph.digests(want)


def test_signatures_of_the_run_and_its_texts_give_the_same_bytes(tmp_path) -> None:
    """With them no text is read, and without reference documents nothing is otherwise than before."""
    own, first = dealt(5, 40, 2)
    reading = earlier(tmp_path / "first", first, {"near": NEAR})
    assert reading.run.signatures
    recipe = recipe_of(**RECIPES["near"])
    without = Reading(first, reading.counted, EarlierRun(**{**vars(reading.run), "signatures": None}))
    made = [
        graph.run_steps(tmp_path / name, judged(recipe, own, [one]))["reference-signatures"]
        for name, one in (("taken", reading), ("read", without))
    ]
    assert made[0].manifest.identity == made[1].manifest.identity
    assert graph.digests(made[0]) == graph.digests(made[1])
    assert made[0].rows == len(reading.counted)
    assert judged(recipe, own, []).identity == steps_of(recipe, own).identity


def test_a_chain_ends_at_a_reference(tmp_path) -> None:
    """A document that is like the reference only through another goes with the component; verified, it stays."""
    words = [f"w{n}" for n in range(400)]
    texts = [" ".join(words[start : start + 100]) for start in (0, 22, 44)]
    near = {"unit": "words", "ngram": 1, "values": 64, "bands": 16, "rows": 4, "threshold": 0.6}
    rows = [{"text": text, "source": "web", "origin_file": "f", "origin_row": n} for n, text in enumerate(texts)]
    sets = [from_files(rows[:1])]
    for verify, want in ((False, ["reference", "reference"]), (True, ["reference", None])):
        recipe = recipe_of(deduplicate={"near": {**near, "verify": verify}}, split={"check": None})
        artifact = graph.run_steps(tmp_path / str(verify), judged(recipe, rows[1:], sets))["verdicts"]
        assert graph.read(artifact).column("reason").to_pylist() == want
        first = json.loads(graph.read(artifact).column("evidence")[0].as_py())
        assert first["against"] == first["kept_row"] == 0
        if verify:
            assert first["jaccard"] == round(78 / 122, 6)
