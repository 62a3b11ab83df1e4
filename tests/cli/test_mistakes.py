"""What newcomers get wrong: one message each, which says what to do, and never a traceback."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

GOOD = {"name": "good", "sources": {"a": {"files": "a.jsonl"}}}
TRAINED = {"tokenizer": {"train": {"vocab_size": 300}}}
RECIPES = {
    "good": GOOD,
    "list": [GOOD],
    "no_sources": {"name": "x"},
    "sources_text": {"name": "x", "sources": "a.jsonl"},
    "source_text": {"name": "x", "sources": {"a": "a.jsonl"}},
    "stages_mapping": {**GOOD, **TRAINED, "stages": {"one": {"sources": {"a": {}}}}},
    "missing_variable": {"name": "x", "sources": {"a": {"files": "${NOT_THERE}/a.jsonl"}}},
    "empty_folder": {"name": "x", "sources": {"a": {"files": "folder"}}},
    "tokenizer_is_yaml": {**GOOD, "tokenizer": {"file": "good.yaml"}, "stages": [{"name": "s", "sources": {"a": {}}}]},
    "empty": {"name": "x", "sources": {"a": {"files": "empty.jsonl"}}},
    "bad": {"name": "x", "sources": {"a": {"files": "bad.jsonl"}}},
    "field": {"name": "x", "sources": {"a": {"files": "a.jsonl", "text": "content"}}},
}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    for name, recipe in RECIPES.items():
        (tmp_path / f"{name}.yaml").write_text(json.dumps(recipe))
    (tmp_path / "a.jsonl").write_text('{"text": "hello"}\n{"text": "world"}\n')
    (tmp_path / "bad.jsonl").write_text("not json\n")
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "tab.yaml").write_text("name: x\nsources:\n\ta: x\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("runn good.yaml", "Did you mean 'run'?"),
        ("run", "RECIPE"),
        ("run good.yaml more", "extra argument"),
        ("run good.yaml --output x", "--out"),
        ("run good.yaml --out", "requires an argument"),
        ("run good.yaml --workers many", "'many' is not a whole number"),
        ("run good.yaml --workers -1", "of at least 0"),
        ("run good.yaml --workers 99999999999999999999", "not a whole number"),
        ("plan good.yaml --workers 0", "of at least 1"),
        ("run good.yaml --memory lots", "use a size such as 4GB"),
        ("run good.yaml --memory 10", "64 MB"),
        ("run good.yaml --out file", "Choose another --out"),
        ("run good.yaml --out file/x", "A file is where a folder should be"),
        ("run good.yaml --until verdict --out new", "Did you mean 'verdicts'?"),
        ("run good.yaml --until stage1 --out new", "Choose one of documents"),
        ("run good.yaml --set nme=x", "Did you mean 'name'?"),
        ("run good.yaml --set name", "KEY=VALUE"),
        ("run good.yaml --set sources.a.limit=-5", "8MB"),
        ("run good.yaml --set sources.b.files=x", "does not exist"),
        ("run nowhere.yaml", "headrace init"),
        ("run folder", "readable YAML file"),
        ("run file", "under `sources`"),
        ("run a.jsonl", "under `sources`"),
        ("plan latin.txt", "UTF-8"),
        ("plan tab.yaml", "line 3"),
        ("plan list.yaml", "mapping"),
        ("plan no_sources.yaml", "The recipe has no sources"),
        ("plan sources_text.yaml", "each with a section of keys"),
        ("plan source_text.yaml", "Its keys are files"),
        ("plan stages_mapping.yaml", "Write a list"),
        ("plan missing_variable.yaml", "NOT_THERE"),
        ("plan empty_folder.yaml", "matches no file"),
        ("plan tokenizer_is_yaml.yaml", "tokenizer.json"),
        ("status nowhere", "--out"),
        ("status good.yaml", "This is not a run folder"),
        ("status", "RUN"),
        ("why nowhere row:0", "This is not a run folder"),
        ("why nowhere", "RUN DOCUMENT"),
        ("why nowhere --text-file folder", "cannot be read"),
        ("why nowhere --text-file latin.txt", "UTF-8"),
        ("replay nowhere --stage s", "--step"),
        ("replay nowhere --step 1", "There is no such file or folder"),
        ("replay nowhere --stage s --step x", "not a whole number"),
        ("path nowhere verdicts", "This is not a run folder"),
        ("clean nowhere", "This is not a run folder"),
        ("digest nowhere", "This is not a run folder"),
        ("init file", "has the folder's name"),
    ],
)
def test_a_mistake_is_told_in_plain_words(folder, command, line, words):
    done = command(*line.split())
    assert done.returncode == 2, done.stdout + done.stderr
    assert words in done.stderr
    assert not re.search(r"Traceback|Errno|Input should|pydantic", done.stderr)


@pytest.mark.parametrize(("name", "words"), [("empty", "it is empty"), ("bad", "not JSON"), ("field", "'content'")])
def test_a_plan_says_that_a_source_has_no_documents(folder, command, name, words):
    done = command("plan", f"{name}.yaml")
    assert done.returncode == 0
    assert words in done.stdout.splitlines()[1]


def test_doctor_says_that_the_folder_for_runs_is_a_file(folder, command):
    done = command("doctor", "--out", "file/runs")
    assert done.returncode == 1
    assert "is a file" in done.stdout


def test_the_command_is_a_module_too():
    done = subprocess.run([sys.executable, "-m", "headrace", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("headrace ")
