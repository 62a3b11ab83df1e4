"""Reading, extending, overriding and writing out recipes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from headrace.recipe.base import parse_count, parse_size
from headrace.recipe.document import document
from headrace.recipe.load import dump, load_recipe, presets
from headrace.recipe.schema import Recipe
from headrace.recipe.structure import section_of

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "recipes").glob("*.yaml"))
SMALL = {
    "name": "small",
    "sources": {"a": {"files": "a.jsonl"}, "b": {"files": ["b.txt", {"glob": "b.py", "format": "docstrings"}]}},
    "tokenizer": {"train": {"vocab_size": "8k"}},
    "stages": [{"name": "s", "sources": {"a": {}}}, {"name": "t", "sources": {"b": {"epochs": 0.5}}}],
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_read_back_equal_from_a_run_folder(path, tmp_path):
    recipe = load_recipe(path)
    (tmp_path / "recipe.yaml").write_text(dump(recipe), encoding="utf-8")
    again = load_recipe(tmp_path / "recipe.yaml")
    assert again == recipe
    # What was stated stays stated: sections may depend on which keys were.
    assert again.model_dump(exclude_unset=True) == recipe.model_dump(exclude_unset=True)
    assert dump(again) == dump(recipe)


def test_the_starter_is_a_recipe(tmp_path):
    from headrace.recipe.starter import write_starter

    assert load_recipe(write_starter(tmp_path / "new")).stages


def test_counts_and_sizes_are_read_as_people_write_them():
    recipe = load_recipe(
        SMALL, ["sources.a.limit=8MB", "sources.a.expect={tokens: 3e9, documents: 1_000, bytes: 2GiB}"]
    )
    assert recipe.sources["a"].limit == 8_000_000
    expect = recipe.sources["a"].expect
    assert expect is not None
    assert (expect.tokens, expect.documents, expect.bytes) == (3_000_000_000, 1000, 2 << 30)
    assert recipe.tokenizer is not None
    assert recipe.tokenizer.train is not None
    assert recipe.tokenizer.train.vocab_size == 8000


@given(st.integers(0, 10**15), st.sampled_from([("k", 10**3), ("M", 10**6), ("B", 10**9), ("T", 10**12), ("", 1)]))
def test_counts_are_exact(n, unit):
    assert parse_count(f"{n}{unit[0]}") == n * unit[1]
    assert parse_count(f"{n:_} {unit[0].lower()}") == n * unit[1]


@given(st.integers(0, 10**12), st.sampled_from([("B", 1), ("kB", 10**3), ("MiB", 2**20), ("GB", 10**9), ("", 1)]))
def test_sizes_are_exact(n, unit):
    assert parse_size(f"{n}{unit[0]}") == n * unit[1]


def test_overrides_take_indices_and_names_and_make_sections():
    recipe = load_recipe(
        SMALL,
        ["stages.t.sources.b.epochs=2", "stages.0.train.batch=4", "split.check=null", "deduplicate.near.ngram=5",
         "sources.b.files=[c.txt]", "name=other"],
    )  # fmt: skip
    assert recipe.stage("t").sources["b"].epochs == 2
    assert recipe.stages[0].train.batch == 4
    assert recipe.split.check is None
    assert recipe.deduplicate is not None
    assert recipe.deduplicate.near is not None
    assert recipe.deduplicate.near.ngram == 5
    assert [files.glob for files in recipe.sources["b"].files] == [str(Path.cwd() / "c.txt")]
    assert recipe.name == "other"


def test_the_last_override_wins_and_the_recipe_given_is_left_alone():
    before = yaml.safe_dump(SMALL)
    assert load_recipe(SMALL, ["seed=2", "seed=3"]).seed == 3
    assert yaml.safe_dump(SMALL) == before


def test_paths_are_relative_to_the_file_that_names_them(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    base = {"sources": {"a": {"files": "../data/*.jsonl", "exclude": "${recipe}/x"}}, "tokenizer": {"file": "tok.json"}}
    (tmp_path / "sub" / "base.yaml").write_text(yaml.safe_dump(base))
    top = {
        "name": "top", "extends": "sub/base.yaml",
        "sources": {"b": {"files": ["${recipe}/b/*.txt", "${stdlib}/*.py", "s3://bucket/*.parquet", "~/c.txt"]}},
        "decontaminate": {"benchmarks": {"exam": {"files": "exam.jsonl", "fields": "q"}}},
    }  # fmt: skip
    (tmp_path / "top.yaml").write_text(yaml.safe_dump(top))
    monkeypatch.chdir("/")
    recipe = load_recipe(tmp_path / "top.yaml")
    assert recipe.sources["a"].files[0].glob == f"{tmp_path}/data/*.jsonl"
    assert recipe.sources["a"].exclude == (f"{tmp_path}/sub/x",)
    assert recipe.tokenizer is not None
    assert recipe.tokenizer.file == f"{tmp_path}/sub/tok.json"
    assert [files.glob for files in recipe.sources["b"].files] == [
        f"{tmp_path}/b/*.txt", "${stdlib}/*.py", "s3://bucket/*.parquet", os.path.expanduser("~/c.txt"),
    ]  # fmt: skip
    assert recipe.decontaminate is not None
    assert recipe.decontaminate.benchmarks["exam"].files == (f"{tmp_path}/exam.jsonl",)


def test_a_folder_with_wildcards_in_its_name_is_no_glob(tmp_path):
    from headrace.documents.sources import list_files

    odd = tmp_path / "a[b]{c,d}*?"
    odd.mkdir()
    (odd / "x.jsonl").write_text('{"text": "x"}\n')
    (odd / "r.yaml").write_text(yaml.safe_dump({"name": "r", "sources": {"a": {"files": ["*.jsonl"]}}}))
    recipe = load_recipe(odd / "r.yaml")
    assert [file.url for file in list_files("a", recipe.sources["a"], 1, odd)] == [str(odd / "x.jsonl")]


def test_presets_lie_below_the_recipe_and_sections_merge():
    recipe = load_recipe({**SMALL, "extends": "slimpajama", "deduplicate": {"near": {"verify": True}}})
    assert recipe.documents.normalise == "ftfy"
    assert recipe.deduplicate is not None
    near = recipe.deduplicate.near
    assert near is not None
    assert (near.unit, near.ngram, near.values, near.bands, near.rows) == ("characters", 13, 128, 9, 13)
    assert near.verify
    assert load_recipe(
        {**SMALL, "extends": "slimpajama", "filters": None, "deduplicate": None} | {"filters": {}}
    ).filters


def test_presets_are_sound():
    assert presets() == ["crystalcoder", "demo", "slimpajama"]
    for name in presets():
        load_recipe({**SMALL, "extends": name} | ({"tokenizer": {"file": "t.json"}} if name == "crystalcoder" else {}))


def test_defaults_reach_every_stage_that_does_not_state_them_itself():
    data = {**SMALL, "defaults": {"sequence_length": 64, "train": {"batch": 3, "keep": 1}}}
    data["stages"] = [SMALL["stages"][0], {**SMALL["stages"][1], "sequence_length": 32, "train": {"batch": 5}}]
    one, two = load_recipe(data).stages
    assert (one.sequence_length, one.train.batch, one.train.keep) == (64, 3, 1)
    assert (two.sequence_length, two.train.batch, two.train.keep) == (32, 5, 1)


def test_short_filter_overrides_per_source():
    recipe = load_recipe(SMALL, ["filters.short={min_characters: 100, sources: {b: {count_spaces: false}}}"])
    assert recipe.filters.short is not None
    assert recipe.filters.short.of("a") == (100, True)
    assert recipe.filters.short.of("b") == (100, False)


def test_the_page_of_all_keys_is_current():
    page = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
    assert page == document(), "run: python -m headrace.recipe.document > docs/recipe.md"


def test_every_key_is_described():
    def undescribed(section, place=""):
        for name, field in section.model_fields.items():
            if not field.description:
                yield f"{place}{name}"
            if inner := section_of(field.annotation):
                yield from undescribed(inner, f"{place}{name}.")

    assert list(undescribed(Recipe)) == []


TALK = {"name": "x", "sources": {"a": {"files": "a.jsonl"}}}
PIECES = {"shape": "pieces", "pieces": [{"start": 0, "end": 0.01, "steps": 5}]}
FLAT = {"optimizer": {"learning_rate": 0.1}, "schedule": {"shape": "wsd", "warmup": 3, "decay": 0.5, "end": 0}}
# Where a section lies, what lies below, what is stated above it, and what comes of the two.
GIVE_WAY = [
    (("tokenizer",), {"train": {"vocab_size": 400}}, {"file": "/t.json"}, {"file": "/t.json"}),
    (("tokenizer",), {"file": "/t.json"}, {"train": {"vocab_size": 400}}, {"train": {"vocab_size": 400}}),
    (("deduplicate", "near"), {"bands": 9, "rows": 13}, {"threshold": 0.7}, {"threshold": 0.7}),
    (("deduplicate", "near"), {"bands": 9, "rows": 13, "ngram": 5}, {"values": 64}, {"ngram": 5, "values": 64}),
    (
        ("deduplicate", "near"),
        {"bands": 9, "rows": 13},
        {"rows": 12, "values": 108},
        {"bands": 9, "rows": 12, "values": 108},
    ),
    (("model",), {"preset": "demo", "width": 512, "heads": 8}, {"preset": "llama-7b"}, {"preset": "llama-7b"}),
    (("model",), {"preset": "demo", "width": 512}, {"heads": 8}, {"preset": "demo", "width": 512, "heads": 8}),
    (("defaults", "train"), FLAT, {"schedule": PIECES}, {"optimizer": {}, "schedule": PIECES}),
    (("defaults", "train"), {"schedule": PIECES}, FLAT, FLAT),
    (("defaults", "train"), FLAT, {"schedule": {"end": 0.2}}, {**FLAT, "schedule": {**FLAT["schedule"], "end": 0.2}}),
]


def leaves(place, value):
    """Each value of a tree with its dotted place."""
    if not isinstance(value, dict):
        return [(place, value)]
    return [leaf for key, inner in value.items() for leaf in leaves(f"{place}.{key}", inner)]


@pytest.mark.parametrize(("place", "below", "above", "made"), GIVE_WAY)
def test_an_alternative_gives_way_to_what_is_stated_above_it(place, below, above, made, tmp_path):
    def at_place(section):
        for key in reversed(place):
            section = {key: section}
        return section

    base = tmp_path / "base.yaml"
    base.write_text(yaml.safe_dump({**TALK, **at_place(below)}))
    extended = load_recipe({**TALK, "extends": str(base), **at_place(above)})
    assert extended == load_recipe({**TALK, **at_place(made)})
    sets = [f"{key}={json.dumps(value)}" for key, value in leaves(".".join(place), above)]
    assert load_recipe({**TALK, **at_place(below)}, sets) == extended


def test_alternatives_give_way_from_defaults_to_stages_and_by_overrides_of_a_stage():
    stage = {"name": "s", "sources": {"a": {"weight": 1}}, "tokens": "1M"}
    data = {**TALK, "tokenizer": {"train": {}}, "stages": [stage], "defaults": {"train": FLAT}}
    data["stages"] = [{**stage, "train": {"schedule": PIECES}}]
    assert load_recipe(data).stages[0].train.schedule.shape == "pieces"
    data["stages"] = [stage]
    made = load_recipe(data, ["stages.s.sources.a.epochs=2", "stages.s.tokens=null", "tokenizer.file=/t.json"])
    assert made.stages[0].sources["a"].epochs == 2
    assert made.tokenizer.train is None


def test_a_file_takes_the_place_of_the_preset_that_trains_a_tokenizer():
    made = load_recipe({**SMALL, "extends": "demo", "tokenizer": {"file": "/t.json"}})
    assert (made.tokenizer.file, made.tokenizer.train) == ("/t.json", None)
