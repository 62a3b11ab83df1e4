"""The page of a limit: every limit can be opened and moved; the numbers are those of tests/view/test_moves.py."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from cleaned_run import make, words, write_corpus
from hypothesis import given
from hypothesis import strategies as st
from pages import parsed, waiting
from starlette.testclient import TestClient

from headrace.documents.store import fetch
from headrace.view.app import application
from headrace.view.chosen import nearest
from headrace.view.limits import Limit, _on_grid, limits_of
from headrace.view.moves import moves, plan
from headrace.view.pages.threshold.load import Threshold, load
from headrace.view.reach import Tally
from headrace.view.target import Target


@pytest.fixture(scope="module")
def target(cleaned) -> Target:
    return Target(cleaned)


@pytest.fixture(scope="module")
def client(target) -> TestClient:
    return TestClient(application(target), base_url="http://localhost", follow_redirects=False)


def shown(target: Target, **query):
    return waiting(lambda: load(target, Threshold(**query)), lambda found: found.moves is not None)


def test_the_recipe_s_limits_are_all_there(target):
    assert list(limits_of(target.recipe)) == [
        "filters.short.min_characters",
        "filters.short.sources.code.min_characters",
        "filters.code.max_lines",
        "filters.code.max_line",
        "filters.code.mean_line",
        "filters.code.max_data_line",
        "filters.code.min_alphanumeric",
        "filters.code.min_alphabetic",
        "filters.code.max_encoded",
        "filters.code.html_min_visible",
        "filters.code.data_characters.0",
        "filters.code.data_characters.1",
        "filters.rules.wordy.0",
        "filters.rules.wordy.1",
        "decontaminate.overlap",
    ]


def test_every_limit_can_be_opened_and_moved(target, client):
    for path, limit in limits_of(target.recipe).items():
        for value in (limit.value, limit.value * 1.7 + 1, 0, -1e15, 1e15):
            found = shown(target, limit=path, value=value)
            assert [one.source for one in found.moves] == ["prose", "code", "chat"]
            page = parsed(client.get("/removed/limit", params={"limit": path, "value": value}))
            assert page.all("input", type="number")
            assert sum(one.documents for one in found.bins) <= target.documents.rows


def test_bins_are_a_histogram(target):
    limit = limits_of(target.recipe)["filters.short.min_characters"]
    found = shown(target, limit=limit.path)
    measures, verdicts, documents = target.artifact("measures"), target.artifact("verdicts"), target.documents
    values = np.concatenate(
        [
            pq.read_table(measures.shard_path(s))["clean_length"].to_numpy()[
                (pq.read_table(documents.shard_path(s))["source"].to_numpy() == "prose")
                & (pq.read_table(verdicts.shard_path(s))["reason"].to_numpy() != "empty")
            ]
            for s in range(len(documents.shards))
        ]
    )
    edges = [one.low for one in found.bins] + [found.bins[-1].high]
    assert np.histogram(values, edges)[0].tolist() == [one.documents for one in found.bins]
    assert limit.value in found.stops


def test_a_move_is_told(target, client):
    limit = limits_of(target.recipe)["filters.short.min_characters"]
    told = moves(target, limit, plan(target, limit), 60)
    gained = sum(one.gained for one in told)
    assert gained
    shown(target, limit=limit.path)
    page = parsed(client.get(f"/removed/limit?limit={limit.path}&value=60"))
    assert f"With 60 instead of 120, {gained:,} documents" in "".join(page.all("p"))
    answer = client.get(f"/removed/limit?limit={limit.path}&value=60&format=json").json()
    assert sum(one["gained"] for one in answer["moves"]) == gained


def test_what_only_a_run_tells_is_said(client):
    page = parsed(client.get("/removed/limit?limit=deduplicate.near.threshold"))
    assert "Run the recipe with" in "".join(page.all("p"))


def test_similar_copies_are_counted_where_that_is_known(tmp_path):
    folder = tmp_path / "corpus"
    run = make(write_corpus(folder), folder / "run", ["deduplicate.near.verify=true"], until="verdicts")
    target = Target(run)
    found = []
    for shard in range(len(target.documents.shards)):
        for row in pq.read_table(target.artifact("verdicts").shard_path(shard)).to_pylist():
            if row["reason"] == "duplicate":
                found.append(json.loads(row["evidence"])["jaccard"])
    assert min(found) < 0.99
    shown = waiting(
        lambda: load(target, Threshold(limit="deduplicate.near.threshold", value=0.95)), lambda one: bool(one.bins)
    )
    assert shown.below == sum(one < 0.95 for one in found)
    assert sum(one.documents for one in shown.bins) == len(found)
    client = TestClient(application(target), base_url="http://localhost")
    page = parsed(client.get("/removed/limit?limit=deduplicate.near.threshold&value=0.95"))
    assert f"{shown.below:,} were less than 0.95" in "".join(page.all("p"))
    order = nearest(target, "duplicate", None).tolist()
    assert len(order) == len(found)
    evidence = fetch(target.artifact("verdicts"), order, ["evidence"])["evidence"].to_pylist()
    assert [json.loads(one)["jaccard"] for one in evidence] == sorted(found)
    assert "nearest the limit" in "".join(parsed(client.get("/removed?reason=duplicate")).all("a"))


def test_wrong_addresses(client):
    assert client.get("/removed/limit?limit=nothing").status_code == 404
    for wrong in ("value=x", "value=nan", "value=inf", "value=1e16", "x=1", f"limit={'x' * 999}"):
        assert client.get(f"/removed/limit?{wrong}").status_code == 400, wrong


def test_a_limit_among_json(tmp_path: Path):
    """Limits of data files, HTML and lines, on documents of these formats."""
    rng = random.Random(1)
    folder = tmp_path / "corpus"
    recipe = write_corpus(folder)
    texts = [json.dumps({"a": words(rng, 6 * i)}) for i in range(40)]
    texts += [f"<html><script>{words(rng, 4 * i)}</script><p>{words(rng, 40)}</p></html>" for i in range(40)]
    with open(folder / "data.jsonl", "w") as file:
        for i, text in enumerate(texts):
            file.write(json.dumps({"text": text, "path": f"a.{'json' if i < 40 else 'html'}"}) + "\n")
    text = recipe.read_text().replace("sources:\n", 'sources:\n  data: {files: "${recipe}/data.jsonl"}\n', 1)
    text = text.replace("sources: [code, prose]", "data_characters: [50, 800], sources: [data]").replace(
        "chat: {}}", "chat: {}, data: {}}"
    )
    recipe.write_text(text)
    now = Target(make(recipe, folder / "run", until="verdicts"))
    cases = {
        "filters.code.data_characters.0": 200,
        "filters.code.data_characters.1": 1200,
        "filters.code.html_min_visible": 0.4,
    }
    for path, value in cases.items():
        limit = limits_of(now.recipe)[path]
        told = {one.source: one for one in moves(now, limit, plan(now, limit), value)}
        override = f"{path}={value}"
        if "data_characters" in path:
            pair = [value, 800] if path.endswith("0") else [50, value]
            override = f"filters.code.data_characters={pair}"
        then = Target(make(recipe, folder / f"run-{path}", [override], until="verdicts"))
        counts = then.artifact("verdicts").manifest.counts
        for source, one in told.items():
            assert one.kept + one.gained - one.lost == counts[source]["kept"], (path, one)
        assert told["data"].gained + told["data"].lost, path


@given(
    st.lists(st.floats(-1e6, 1e6) | st.integers(-3000, 3000).map(lambda n: n / 1000)),
    st.integers(-3000, 3000),
    st.booleans(),
)
def test_rounded_keys_answer_as_exact_ones(keys, thousandths, strict):
    limit = thousandths / 1000
    exact = np.array(keys, dtype=np.float64)
    rounded = _on_grid(exact, 3, up=strict)
    assert (
        np.array_equal(rounded > limit, exact > limit) if strict else np.array_equal(rounded >= limit, exact >= limit)
    )


@given(st.lists(st.lists(st.integers(-5, 5).map(float), max_size=30), max_size=6), st.integers(-6, 6), st.booleans())
def test_a_tally_counts(parts, value, strict):
    tally = Tally()
    for part in parts:
        tally.add(np.array(part), np.abs(np.array(part)))
    limit = replace(LIMIT, strict=strict)
    every = [key for part in parts for key in part if (key > value if strict else key >= value)]
    assert tally.steps().reach(limit, value).tolist() == [len(every), sum(map(abs, every))]


LIMIT = Limit("", "", 0, "", "", True, False, True, (0, 1), frozenset(), (), lambda table, source: np.empty(0))
