"""What users get wrong: one clear message, exit code 2, and nothing that was done is lost."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from small_run import prose, published

from commands import apart, headrace


def recipe(folder: Path, **changes) -> Path:
    """A minimal recipe of one JSONL source, with changes."""
    folder.mkdir(exist_ok=True)
    base = {
        "name": "wrong",
        "sources": {"a": {"files": "${recipe}/a.jsonl"}},
        "deduplicate": {},
        "tokenizer": {"train": {"vocab_size": 400}},
        "stages": [{"name": "s", "sequence_length": 16, "sources": {"a": {}}}],
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(base | changes))  # JSON is YAML
    return path


def write(folder: Path, texts: list[str]) -> None:
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))


def refused(*arguments) -> str:
    done = headrace(*arguments, check=False)
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 12, done.stderr
    return done.stderr


def good(n: int = 40) -> list[str]:
    rng = random.Random(5)
    return [prose(rng, 60) for _ in range(n)]


def test_missing_file(tmp_path):
    said = refused("run", recipe(tmp_path), "--out", tmp_path / "run")
    assert "a.jsonl" in said


def test_missing_recipe(tmp_path):
    assert "nowhere.yaml" in refused("run", tmp_path / "nowhere.yaml", "--out", tmp_path / "run")


def test_empty_source(tmp_path):
    path = recipe(tmp_path)
    (tmp_path / "a.jsonl").write_text("")
    said = refused("run", path, "--out", tmp_path / "run", "--workers", 0)
    assert "a" in said
    assert "no document" in said.lower() or "empty" in said.lower()


def test_wrong_field_name_names_the_fields_that_are_there(tmp_path):
    path = recipe(tmp_path)
    (tmp_path / "a.jsonl").write_text(json.dumps({"content": "x" * 300, "stars": 1}) + "\n")
    said = refused("run", path, "--out", tmp_path / "run")
    assert "text" in said
    assert "content" in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sorces": {}}, ["sorces", "sources"]),
        ({"stages": [{"name": "s", "sources": {"a": {"epochs": -1}}}]}, ["epochs", "-1"]),
        ({"stages": [{"name": "s", "sources": {"a": {"slice": [0.5, 1.5]}}}]}, ["slice", "1.5"]),
        ({"stages": [{"name": "s", "sources": {"a": {}}, "sequence_length": 1}]}, ["sequence", "1"]),
        ({"stages": [{"name": "s", "sources": {"b": {}}}]}, ["b", "a"]),
    ],
)
def test_wrong_recipes(tmp_path, change, words):
    path = recipe(tmp_path, **change)
    write(tmp_path, good())
    said = refused("run", path, "--out", tmp_path / "run")
    for word in words:
        assert word in said
    assert not (tmp_path / "run" / "artifacts").exists()


def test_bad_lines_go_to_quarantine_and_are_counted(tmp_path):
    path = recipe(tmp_path, documents={"max_quarantined": 0.2})
    lines = [json.dumps({"text": t}).encode() for t in good()]
    bad = [b'{"text": 1}', b"{", b'{"text": "\\ud800"}', b'{"text": "\xff"}', b'{"words": "x"}']
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([*lines[:20], *bad, *lines[20:]]) + b"\n")
    run = tmp_path / "run"
    headrace("run", path, "--out", run, "--until", "documents", "--workers", 0)
    folder = next((run / "artifacts").glob("documents-*"))
    lines = [line for f in sorted((folder / "quarantine").iterdir()) for line in f.read_text().splitlines()]
    entries = [json.loads(line) for line in lines]
    assert [e["line"] for e in entries] == [21, 22, 23, 24, 25]
    assert all(e["file"].endswith("a.jsonl") and e["error"] for e in entries)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["counts"]["a"]["documents"] == 40
    assert manifest["counts"]["a"]["quarantined"] == 5
    table = pq.read_table(folder / manifest["shards"][0]["name"])
    assert sorted(table["origin_row"].to_pylist()) == [*range(20), *range(25, 45)]


def test_too_many_bad_lines_stop_the_run(tmp_path):
    path = recipe(tmp_path)
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "fine and long enough"}\n' * 50 + b"{\n" * 50)
    said = refused("run", path, "--out", tmp_path / "run", "--workers", 0)
    assert "50" in said
    assert "max_quarantined" in said


def test_a_document_of_100_mb_and_one_of_nuls(tmp_path):
    path = recipe(tmp_path, filters={"short": None}, deduplicate={"near": {"verify": True}})
    giant = "the quick brown fox jumps over it " * 3_000_000
    write(tmp_path, [*good(), giant[: 100 << 20], "\0" * 1000])
    run = tmp_path / "run"
    headrace("run", path, "--out", run, "--until", "verdicts", "--workers", "2")
    verdicts = json.loads((next((run / "artifacts").glob("verdicts-*")) / "manifest.json").read_text())
    assert sum(s["rows"] for s in verdicts["shards"]) == 42


def test_an_unwritable_output_folder(tmp_path):
    path = recipe(tmp_path)
    write(tmp_path, good())
    (tmp_path / "file").write_text("")
    said = refused("run", path, "--out", tmp_path / "file" / "run")
    assert "A file is where a folder should be" in said


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_loses_nothing(tmp_path, small_disk):
    path = recipe(tmp_path)
    rng = random.Random(1)
    write(tmp_path, [prose(rng, 3000) + str(i) for i in range(300)])
    said = refused("run", path, "--out", small_disk / "run", "--workers", "2")
    assert "full" in said
    done = published(small_disk / "run")
    subprocess.run(["mount", "-o", "remount,size=200m", small_disk], check=True)
    headrace("run", path, "--out", small_disk / "run", "--workers", "2")
    after = published(small_disk / "run")
    assert done.items() <= after.items()
    headrace("run", path, "--out", tmp_path / "elsewhere", "--workers", "0")
    assert published(tmp_path / "elsewhere") == after


def test_commands_on_a_folder_that_is_no_run(tmp_path):
    for command in (["status", tmp_path], ["why", tmp_path, "0" * 32], ["digest", tmp_path]):
        refused(*command)
    refused("replay", tmp_path, "--stage", "stage1", "--step", "1")


def test_environment_does_not_leak(tmp_path):
    """The run's bytes do not depend on the locale or the hash seed."""
    path = recipe(tmp_path)
    write(tmp_path, good())
    for k, extra in enumerate(({"PYTHONHASHSEED": "1", "LC_ALL": "C"}, {"PYTHONHASHSEED": "2", "LC_ALL": "C.UTF-8"})):
        apart("run", path, "--out", tmp_path / f"run{k}", "--workers", 0, env={**os.environ, **extra})
    assert published(tmp_path / "run0") == published(tmp_path / "run1")


def test_urls_that_cannot_be_written_to_are_told(tmp_path, monkeypatch):
    pytest.importorskip("obstore")
    path = recipe(tmp_path)
    write(tmp_path, good())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    assert "no credentials" in refused("run", path, "--out", "s3://bucket/run")
    assert "URL" in refused("run", path, "--out", "ftp://host/run")
    assert not (tmp_path / "s3:").exists()
    assert not (tmp_path / "ftp:").exists()


def test_documents_without_text_are_removed_as_empty(tmp_path):
    path = recipe(tmp_path, split={"validation": 0.0})
    write(tmp_path, [*good(), "", ""])
    run = tmp_path / "run"
    headrace("run", path, "--out", run, "--until", "verdicts", "--workers", 0)
    folder = next((run / "artifacts").glob("verdicts-*"))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["counts"]["a"]["removed"]["empty"] == 2
    assert manifest["counts"]["a"]["kept"] == 40
