"""What a plan and a run say before any work: what is missing, and what cannot come out as asked."""

from __future__ import annotations

import json
import random
import sys

import pytest
import yaml

from headrace import pipeline
from headrace.errors import UserError
from headrace.planning.forecast import plan
from headrace.recipe.load import load_recipe

MODEL = {"preset": "demo"}


def recipe(tmp_path, **changes):
    rows = [json.dumps({"text": f"{i} " + "mill race " * 40}) for i in range(50)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    data = {
        "name": "x",
        "sources": {"a": {"files": str(tmp_path / "a.jsonl")}},
        "tokenizer": {"train": {"vocab_size": 300}},
        "stages": [{"name": "s", "sequence_length": 32, "sources": {"a": {}}, "train": {"batch": 4}}],
    }
    return load_recipe(data | changes)


def stage(**changes):
    return [{"name": "s", "sequence_length": 32, "sources": {"a": {}}, "train": {"batch": 4}} | changes]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": MODEL, "stages": stage(train={"batch": 4, "steps": 10_000})}, ["10,000 steps", "batches"]),
        ({"model": MODEL, "stages": stage(train={"batch": 100_000})}, ["too few for one batch of 100,000"]),
        ({"stages": stage(sequence_length=1_000_000)}, ["too few for one row of 1,000,000"]),
        ({"stages": stage(tokens="300k", sources={"a": {"weight": 1}})}, ["passes", "'a'"]),
    ],
)
def test_a_plan_says_what_will_not_come_out_as_asked(tmp_path, changes, words):
    made = plan(recipe(tmp_path, **changes))
    assert len(made.notes) == 1
    assert all(word in made.notes[0] for word in words)
    assert made.notes[0] in " ".join(str(made).split("\n"))
    assert made.to_json()["notes"] == list(made.notes)


def test_a_plan_of_what_can_be_done_says_nothing(tmp_path):
    assert plan(recipe(tmp_path, model=MODEL)).notes == ()


def test_benchmarks_that_are_missing_are_refused_or_said(tmp_path):
    missing = {"benchmarks": {"b": {"files": str(tmp_path / "none.jsonl"), "fields": ["p"]}}}
    with pytest.raises(UserError, match=r"none\.jsonl"):
        plan(recipe(tmp_path, decontaminate=missing))
    ahead = {"a": {"files": "/not/yet/a.jsonl", "expect": {"documents": 10, "tokens": "1M"}}}
    made = plan(recipe(tmp_path, decontaminate=missing, sources=ahead))
    assert "none.jsonl" in made.notes[0]


@pytest.mark.parametrize("library", ["torch", "safetensors"])
def test_a_run_asks_for_what_training_needs_before_any_work(tmp_path, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    wanted = recipe(tmp_path, model=MODEL)
    assert f"needs {library}" in plan(wanted).notes[0]
    with pytest.raises(UserError, match=r"pip install 'headrace\[train\]'"):
        pipeline.run(wanted, tmp_path / "run", workers=1)
    assert not (tmp_path / "run").exists()
    assert plan(recipe(tmp_path)).notes == ()  # nothing is trained


@pytest.mark.parametrize(("protocol", "module"), [("s3", "s3fs"), ("gs", "gcsfs"), ("abfs", "adlfs")])
def test_a_file_system_that_is_not_installed_is_asked_for(tmp_path, monkeypatch, protocol, module):
    monkeypatch.setitem(sys.modules, module, None)
    files = {"a": {"files": f"{protocol}://bucket/a.jsonl"}}
    with pytest.raises(UserError, match=f"pip install {module}"):
        plan(recipe(tmp_path, sources=files))


@pytest.mark.parametrize("seed", range(3))
def test_small_sources_of_any_kind_are_counted_exactly(tmp_path, seed):
    rng = random.Random(seed)
    for i in range(60):
        (tmp_path / f"{i}.py").write_text("x = 1  # a comment\n" * int(rng.paretovariate(0.7)))
    for i in range(30):
        lines = [
            json.dumps({"text": "мельница 水車 " * int(rng.paretovariate(0.7))}) for _ in range(rng.randrange(1, 30))
        ]
        (tmp_path / f"{i}.jsonl").write_text("\n".join(lines))
    data = {"name": "x", "sources": {"code": {"files": "*.py"}, "text": {"files": "*.jsonl"}}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(data))
    wanted = load_recipe(tmp_path / "r.yaml")
    estimated = plan(wanted).sources
    pipeline.run(wanted, tmp_path / "run", workers=1, until="documents")
    exact = plan(wanted, tmp_path / "run").sources
    assert {s.basis for s in exact} == {"measured"}
    assert [(s.documents, s.bytes) for s in estimated] == [(s.documents, s.bytes) for s in exact]


def test_large_json_lines_with_escapes_are_estimated_well(tmp_path):
    rng = random.Random(1)
    rows = [json.dumps({"text": "水車小屋" * rng.randrange(50, 150), "id": i}) for i in range(8000)]
    (tmp_path / "big.jsonl").write_text("\n".join(rows))
    (source,) = plan(load_recipe({"name": "x", "sources": {"a": {"files": str(tmp_path / "big.jsonl")}}})).sources
    assert source.documents == pytest.approx(8000, rel=0.05)


def long_and_short(tmp_path, **changes):
    """A recipe for rows of 16k, with 3 documents of some 8,000 tokens and 500 of some 100."""
    texts = ["word " * 6000] * 3 + ["word " * 75] * 500
    (tmp_path / "lengths.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    sources = {"a": {"files": str(tmp_path / "lengths.jsonl")}}
    return recipe(tmp_path, sources=sources, stages=stage(sequence_length=16_384, **changes))


def test_long_rows_of_short_documents_are_told(tmp_path):
    (note,) = plan(long_and_short(tmp_path)).notes
    assert "only 32.4 % of its tokens are in documents of 2,048 or more" in note
    assert plan(long_and_short(tmp_path, train={"attention": {"documents": True}})).notes == ()
    assert plan(long_and_short(tmp_path, sources={"a": {"epochs": {0: 0.5, "2k": 2}}})).notes == ()


def test_a_plan_shows_what_is_taken_by_length(tmp_path):
    made = plan(long_and_short(tmp_path, sources={"a": {"epochs": {0: 0.5, "2k": 2}}}))
    short, long = made.stages[0].sources
    assert (short.lengths, long.lengths) == ((0, 2000), (2000, None))
    (source,) = made.sources
    assert source.lengths.at_least(4096)[0] == pytest.approx(3 / 503)
    assert long.documents == 6
    assert long.tokens / short.tokens == pytest.approx(2 * 3 * 6000 / (0.5 * 500 * 75), rel=0.03)
    assert "2,000 or more" in str(made)


def test_a_length_that_the_sample_lacks_is_a_guess(tmp_path):
    (note, *_) = plan(long_and_short(tmp_path, sources={"a": {"epochs": {0: 1, "64k": 2}}})).notes
    assert "no documents of 64,000 tokens or more" in note
