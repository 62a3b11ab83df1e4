"""Everything a user may get wrong in a recipe: one message that names the place, the line and the remedy."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.errors import UserError
from headrace.recipe.load import load_recipe

GOOD: dict[str, Any] = {
    "name": "good",
    "sources": {
        "code": {"files": "code/*.jsonl"},
        "prose": {"files": "prose/*.jsonl"},
        "talk": {"files": "talk.json", "format": "chat"},
    },
    "filters": {"short": {"sources": {"code": {"min_characters": 50}}}, "code": {"sources": ["code"]}},
    "deduplicate": {"priority": ["code"], "against": [{"files": ["known/*.jsonl"]}, "earlier"]},
    "quality": {
        "annotators": {"code": {"positives": {"sources": ["prose"], "files": [{"files": ["good/*.jsonl"]}, "more"]}}},
        "benchmarks": {"code": {"files": ["code.jsonl"], "fields": ["solution"]}},
    },
    "tokenizer": {"train": {"vocab_size": 1000}},
    "stages": [
        {"name": "one", "sources": {"code": {}, "prose": {}}},
        {"name": "two", "chat": "chatml", "sources": {"talk": {}}},
    ],
}


def changed(place: str, value: Any) -> dict[str, Any]:
    """The good recipe with one key set; ``...`` removes it."""
    data = copy.deepcopy(GOOD)
    *path, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    node: Any = data
    for part in path:
        node = node[part] if isinstance(node, list) else node.setdefault(part, {})
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return data


def refusal(data: Any, *overrides: str) -> str:
    with pytest.raises(UserError) as error:
        load_recipe(data, overrides)
    return str(error.value)


def test_the_good_recipe_is_good():
    assert load_recipe(GOOD).name == "good"


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("sorces", {}, ["sorces", "Did you mean 'sources'?"]),
        ("sources.code.fies", "x", ["sources.code.fies", "Did you mean 'files'?"]),
        ("stages.0.train.optimizer.learning_rat", 1, ["stages.0.train", "Did you mean 'learning_rate'?"]),
        ("stages.0.train.optimizer.momentum", 0.9, ["optimizer", "AdamW has no `momentum`"]),
        ("split.zzz", 1, ["split.zzz", "validation, test, check"]),
        ("stages.0.sources.code.epochs", -1, ["stages.0.sources.code.epochs", "-1", "above 0"]),
        ("stages.0.sources.code.epochs", 0, ["above 0"]),
        ("stages.0.sources.code.epochs", 70000, ["65,535"]),
        ("stages.0.sources.code.slice", [0.5, 1.5], ["stages.0.sources.code.slice", "[0.5, 1.5]", "beyond"]),
        ("stages.0.sources.code.slice", [0.6, 0.5], ["reversed"]),
        ("stages.0.sources.code.slice", [0.5, 0.5], ["empty"]),
        ("stages.0.sequence_length", 1, ["stages.0.sequence_length", "sequence length of 1", "2 or more"]),
        ("split", {"validation": 0.6, "test": 0.4}, ["split", "leaving none", "less than 1"]),
        ("quality.annotators.code.positives", {}, ["quality.annotators.code.positives", "no positives"]),
        ("quality.annotators.code.positives", {"sources": "poems"}, ["positives.sources.0", "'poems'"]),
        ("quality.annotators.code.positives", {"sources": ["code", "prose", "talk"]}, ["nothing to tell them from"]),
        ("quality.annotators.code.negatives", ["prose"], ["negatives.0", "both positives and negatives"]),
        ("quality.annotators.code.negatives", [], ["no negatives"]),
        ("quality.annotators.code.kind", "liner", ["quality.annotators.code.kind", "Did you mean 'linear'?"]),
        ("quality.annotators.code", {"kind": "encoder"}, ["folder", "positives", "is missing"]),
        (
            "quality.annotators.code",
            {"kind": "fasttext", "file": "a", "labl": "b"},
            ["code.labl", "did you mean 'label'"],
        ),
        ("quality.annotators.code", {"kind": ["linear"]}, ["quality.annotators.code.kind", "Use linear, encoder"]),
        (
            "quality.annotators.code",
            {"kind": "classifier", "folder": "m", "windows": ["side"]},
            ["windows.0", "'side'"],
        ),
        ("quality.annotators.code", {"kind": "perplexity", "model": "m", "window": 1}, ["code.window", "at least 2"]),
        ("quality.annotators.code", 3, ["quality.annotators.code", "not a section"]),
        ("quality.keep", {"share": 0.1, "above": 3}, ["quality.keep", "one of share, tokens and above"]),
        ("quality.keep", {"share": 0.1, "by": "code"}, ["quality.keep.by", "Use one of language, source", "no 'code'"]),
        ("quality.keep", {"share": 0.1, "by": None, "only": "en"}, ["quality.keep.by", "ranked together"]),
        ("quality.keep", {}, ["quality.keep", "one of share, tokens and above"]),
        ("quality.keep", {"annotator": "prose", "share": 0.1}, ["quality.keep.annotator", "he annotators are code"]),
        ("quality.keep", {"tokens": "1M"}, ["quality.keep.tokens", "`tokenizer.file`"]),
        ("sources.talk.group", {}, ["sources.talk.group", "onversations are not grouped"]),
        ("stages.1.group", {}, ["stages.1.group", "only conversations"]),
        ("stages.0.group.oder", "path", ["stages.0.group.oder", "Did you mean 'order'?"]),
        ("stages.0.group.order", "random", ["stages.0.group.order"]),
        ("stages.0.group.limit", 1, ["stages.0.group.limit"]),
        ("stages.0.group.metadata", 1.5, ["stages.0.group.metadata"]),
        (
            "stages.0.group.format",
            "starcoder2",
            ["stages.0.group.format", "<repo_name> and <file_sep>", "special: {add:"],
        ),
        ("sources.code.group.format", "starcoder2", ["sources.code.group.format", "<file_sep>"]),
        ("stages.0.group.header", "{pth}", ["stages.0.group.header", "{pth}", "`{path}`"]),
        ("stages.0.group.header", "{path:>9}", ["stages.0.group.header", "not filled in"]),
        ("stages.0.group.start", "{path}", ["stages.0.group.start", "`{repo}`"]),
        ("stages.0.group.header", "{", ["stages.0.group.header", "`{{`"]),
        (
            "stages.0",
            {"name": "one", "sources": {"code": {"fim": {"rate": 1}}}, "fim_level": "context", "group": {}},
            ["stages.0.fim_level", "cut across the files of a group", "fim_level: document"],
        ),
        ("stages.0", {"name": "one", "sequence": "x.h5", "group": {}}, ["stages.0.group", "there already"]),
        ("split.validation", 1.2, ["split.validation", "1.2"]),
        ("stages.0.sources.proze", {}, ["'proze'", "code, prose, talk"]),
        ("deduplicate.priority", ["codes"], ["deduplicate.priority.0", "'codes'"]),
        ("deduplicate.priority", ["code", "code"], ["twice"]),
        ("filters.short.sources.nowhere", {}, ["filters.short.sources.nowhere", "no source"]),
        ("filters.code.sources", ["nowhere"], ["filters.code.sources.0", "no source"]),
        ("stages.1.name", "one", ["stages.1.name", "Two stages"]),
        ("stages.1.name", "heldout", ["stages.1.name", "heldout"]),
        ("stages.1.start", "three", ["stages.1.start", "not an earlier stage", "one, scratch"]),
        ("stages.0.sources.code.weight", 0.5, ["stages.0.tokens", "token total"]),
        ("stages.0.tokens", "3B", ["stages.0.tokens", "weights"]),
        (
            "stages.0",
            {"name": "w", "tokens": "1M", "sources": {"code": {"weight": 1}, "prose": {}}},
            ["'prose'", "none"],
        ),
        ("stages.0.sources.code", {"weight": 1, "epochs": 1}, ["both"]),
        ("stages.0", {"name": "w", "tokens": 5, "sources": {"code": {"weight": 1}}}, ["5 tokens", "one row"]),
        ("stages.0.sources.code.fim", {"rate": 1.1}, ["stages.0.sources.code.fim.rate", "1.1", "0 to 1"]),
        ("stages.0.sources.code.fim", {"rate": 0.1, "spm": -1}, ["fim.spm", "-1"]),
        ("stages.1.sources.talk.fim", {"rate": 0.5}, ["stages.1.sources.talk.fim", "conversations"]),
        ("stages.1.chat", ..., ["stages.1.chat", "chatml"]),
        ("stages.1.chat", "chatlm", ["Did you mean 'chatml'?"]),
        ("stages.1.chat", {"template": "chatml", "variables": {"a": 1}}, ["chatml has no variables"]),
        ("stages.1.chat", {"template": "llama3", "date": "May"}, ["stages.1.chat.date", "2024-07-26"]),
        ("stages.1.chat", {"template": "llama3", "truncate": "middle"}, ["stages.1.chat.truncate"]),
        ("tokenizer", ..., ["tokenizer", "need"]),
        ("tokenizer", {"train": {}, "file": "x.json"}, ["either"]),
        ("tokenizer", {}, ["either"]),
        ("tokenizer.train.vocab_size", 10, ["tokenizer.train.vocab_size", "300"]),
        ("deduplicate.near", {"bands": 9}, ["deduplicate.near.rows", "rows is missing"]),
        ("deduplicate.near", {"bands": 10, "rows": 13}, ["130", "128"]),
        ("deduplicate.near", {"threshold": 1.0}, ["threshold", "less than 1"]),
        ("sources.code.limit", "8XB", ["sources.code.limit", "8XB", "8MB"]),
        ("sources.code.limit", -8, ["below 0"]),
        ("sources.code.limit", 0, ["nothing"]),
        ("sources.code.files", [], ["sources.code.files"]),
        ("sources.code.files", ..., ["The source has no files", "Name one path"]),
        ("sources.code.files", ["a.jsonl", {"glob": "b.json", "format": "chat"}], ["both"]),
        ("sources.code.format", "jsonll", ["Did you mean 'jsonl'?"]),
        ("sources.a b", {"files": "x"}, ["'a b'", "letters"]),
        ("sources.code", None, ["sources.code", "empty"]),
        ("decontaminate", {"benchmarks": {}}, ["decontaminate.benchmarks"]),
        ("filters.code.data_characters", [10, 5], ["reversed"]),
        ("defaults", {"sequence_lenght": 5}, ["defaults.sequence_lenght", "sequence_length"]),
        ("defaults", {"name": "x"}, ["defaults.name"]),
        ("name", ..., ["'name' is missing"]),
        ("seed", -1, ["seed", "-1"]),
    ],
)
def test_messages(place, value, words):
    said = refusal(changed(place, value))
    for word in words:
        assert word in said, said


def test_unknown_keys_are_told_with_file_and_line(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("name: x\nsources:\n  a:\n    files: a.txt\n    limt: 8MB\n")
    said = refusal(path)
    assert f"{path}, line 5" in said
    assert "'limit'" in said


def test_several_mistakes_are_told_at_once(tmp_path):
    said = refusal(changed("sources.code.limit", "x") | {"seed": -1, "extra": 1})
    assert "3 mistakes" in said
    assert said.count("\n") == 3


def test_a_mistake_in_the_defaults_is_told_where_it_stands(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(GOOD) + "defaults:\n  train:\n    batch: 0\n")
    assert f"line {path.read_text().count(chr(10))}" in refusal(path)


def test_a_mistake_in_an_override_names_it():
    assert "--set stages.one.sequence_length=1" in refusal(GOOD, "stages.one.sequence_length=1")
    assert "--set split.test=2" in refusal(GOOD, "split.test=2")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["empty"]),
        ("- a\n- b\n", ["mapping"]),
        ("name: x\n  sources: y\n", ["not valid YAML", "line 2"]),
        ("name: x\nname: y\nsources: {}\n", ["'name' appears twice", "lines 1 and 2"]),
        ("name: [x\n", ["not valid YAML"]),
        ("extends: slimpyjama\nname: x\n", ["no preset", "Did you mean 'slimpajama'?"]),
        ("extends: 3\nname: x\n", ["preset or a file"]),
        ("extends: other.yaml\nname: x\n", ["other.yaml", "does not exist"]),
        ("extends: recipe.yaml\nname: x\n", ["extends itself"]),
        ("name: !!python/object:os.system x\n", ["not valid YAML"]),
    ],
)
def test_files_that_are_no_recipes(tmp_path, text, words):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    said = refusal(path)
    for word in words:
        assert word in said, said


def test_files_that_cannot_be_read(tmp_path):
    assert "headrace init" in refusal(tmp_path / "nowhere.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    assert "UTF-8" in refusal(tmp_path / "latin.yaml")
    assert "cannot be read" in refusal(Path(tmp_path))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("split.validation", ["KEY=VALUE"]),
        ("=1", ["KEY=VALUE"]),
        ("split.=1", ["KEY=VALUE"]),
        ("stages.three.tokens=1", ["'three'", "one, two"]),
        ("stages.7.tokens=1", ["'7'"]),
        ("name.first=x", ["'first'", "not a section"]),
        ("seed=[1", ["not valid YAML"]),
        ("sead=1", ["sead", "'seed'"]),
    ],
)
def test_overrides_that_make_no_sense(override, words):
    said = refusal(GOOD, override)
    for word in words:
        assert word in said, said


def test_several_mistakes_are_clauses_of_one_line():
    """What ends in a full stop and begins with a capital, alone, does neither among others."""
    two = changed("sources.code.limit", "x") | {"measures": {"m": {"python": "nowhere.py:f", "type": "int"}}}
    lines = refusal(two).split("\n")[1:]
    assert len(lines) == 2
    for line in lines:
        assert not re.search(r"; [A-Z][a-z]|\.;|\.$", line), line


@pytest.mark.parametrize(("text", "words"), [("{a: 1, a: 2}", "line 1"), ("a: 1\n\na: 2", "lines 1 and 3")])
def test_a_key_that_appears_twice_is_told_with_its_lines(tmp_path, text, words):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert f"{words}\n" in refusal(path)
