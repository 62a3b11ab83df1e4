"""A finished run grows, shrinks and changes: what was not touched is taken over, the bytes are a first run's."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
from small_run import killed_at_event, prose, published

from commands import headrace
from headrace.flow.events import read_events
from quick import quick

# Tasks of these kinds depend on their own documents only.
APART = {"measures": "measure", "signatures": "sign", "contamination": "search"}


@pytest.fixture
def grown(corpus, finished, tmp_path) -> tuple[Path, Path]:
    """A copy of the corpus and of its finished run, to be changed."""
    shutil.copytree(corpus, tmp_path / "corpus")
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "corpus", tmp_path / "run"


def latest(run: Path) -> dict[str, bytes]:
    """The bytes of the artifacts that the recipe in the folder makes."""
    names = json.loads(headrace("digest", run, "--json").stdout)["artifacts"]
    return {name: data for name, data in published(run).items() if name.split("/")[0] in names}


def add_files(root: Path) -> None:
    rng = random.Random(9)
    (root / "tree" / "new").mkdir()
    (root / "tree" / "new" / "module.py").write_text(f"def new():\n    '''{prose(rng, 80)}'''\n" * 3)
    rows = [json.dumps({"content": prose(rng, 90), "licence": "MIT"}) for _ in range(20)]
    (root / "code" / "0-more.jsonl").write_text("\n".join(rows) + "\n")


def change_files(root: Path) -> None:
    """One with other documents, one gone."""
    (root / "tree" / "copy_of_code.py").unlink()
    (root / "code" / "1.jsonl").write_text(json.dumps({"content": prose(random.Random(5), 400)}) + "\n")


def edit(root: Path, old: str, new: str) -> None:
    text = (root / "recipe.yaml").read_text()
    assert old in text
    (root / "recipe.yaml").write_text(text.replace(old, new, 1))


def change_sources(root: Path) -> None:
    """Another source before the first, and the last moved to the front."""
    (root / "more.jsonl").write_text(json.dumps({"text": prose(random.Random(3), 300)}) + "\n")
    line = '  chat: {files: "${recipe}/chat.json", format: chat}\n'
    edit(root, line, "")
    edit(root, "sources:\n", 'sources:\n  more: {files: "${recipe}/more.jsonl"}\n' + line)


CHANGES = [add_files, change_files, change_sources]


@pytest.mark.parametrize("change", quick(CHANGES, change_sources))
def test_the_bytes_are_those_of_a_first_run(grown, tmp_path, change):
    corpus, run = grown
    change(corpus)
    seen = len(list(read_events(run)))
    headrace("run", corpus / "recipe.yaml", "--out", run, "--workers", 1 + CHANGES.index(change) % 3)
    headrace("run", corpus / "recipe.yaml", "--out", tmp_path / "anew", "--workers", 0)
    assert latest(run) == published(tmp_path / "anew")
    taken = {
        (e["artifact"].split("-")[0], e["phase"]): e["taken"]
        for e in list(read_events(run))[seen:]
        if e["event"] == "phase"
    }
    assert taken["documents", "read"] > 0
    for kind, phase in APART.items():
        assert taken[kind, phase] > 0


@pytest.mark.slow  # tests/flow/test_reuse.py kills at every file that is taken over
@pytest.mark.parametrize("events", [(2,), (1, 2, 3)], ids=str)
def test_killed_while_it_grows_the_bytes_are_the_same(grown, tmp_path, events):
    """SIGKILL of the coordinator after so many events of each artifact."""
    corpus, run = grown
    add_files(corpus)
    headrace("run", corpus / "recipe.yaml", "--out", tmp_path / "anew", "--workers", 0)
    names = json.loads(headrace("digest", tmp_path / "anew", "--json").stdout)["artifacts"]
    for name in names:
        for left in events:
            killed_at_event(corpus / "recipe.yaml", run, name, left)
    headrace("run", corpus / "recipe.yaml", "--out", run, "--workers", 2)
    assert latest(run) == published(tmp_path / "anew")
