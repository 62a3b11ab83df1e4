"""Files and sources come, change and go: only what they touch is read again, and the bytes are those of a first run."""

from __future__ import annotations

import gzip
import os
import random
from pathlib import Path

import orjson
import pytest
from documents_graph import build
from test_documents_step import contents

from headrace.documents import boundaries
from headrace.flow.events import read_events


@pytest.fixture(autouse=True)
def _workers_find_the_graph(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)


@pytest.fixture(autouse=True)
def _small_runs(monkeypatch):
    for name in ("LEAST", "MEAN", "MOST"):  # only the coordinator, which is this process, cuts
        monkeypatch.setattr(boundaries, name, getattr(boundaries, name) >> 10)


def lines(path: Path, texts: list[str]) -> None:
    data = b"".join(orjson.dumps({"text": text}) + b"\n" for text in texts)
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


@pytest.fixture
def corpus(tmp_path) -> Path:
    """A tree of some 20 runs with a bad file in some, packed files, and a file of several byte ranges."""
    root, rng = tmp_path / "corpus", random.Random(0)
    (root / "tree").mkdir(parents=True)
    for i in range(150):
        (root / "tree" / f"{i:03d}.py").write_bytes(b"x = 1\n" * rng.randint(100, 1000) if i % 20 else b"\xff")
    for i in range(3):
        lines(root / f"{i}.jsonl.gz", [f"{i} {rng.random()}" for _ in range(300)])
    lines(root / "big.jsonl", [f"{i} " * 300 for i in range(30_000)])
    return root


def sources(root: Path) -> dict:
    return {
        "tree": {"files": f"{root}/tree/*.py", "license": "MIT"},
        "packed": {"files": f"{root}/*.jsonl.gz"},
        "big": {"files": f"{root}/big.jsonl"},
    }


def change(root: Path, given: dict, what: str) -> dict:
    tree = root / "tree"
    if what == "a file is added":
        (tree / "070-new.py").write_text("new = 1\n")
        lines(root / "1-more.jsonl.gz", ["more"])
    elif what == "a file is removed":
        (tree / "071.py").unlink()
        (root / "1.jsonl.gz").unlink()
    elif what == "a file is changed":
        (tree / "071.py").write_text("other = 1\n")
        lines(root / "1.jsonl.gz", ["other"])
    elif what == "a source is added":
        lines(root / "more.json", ["more"])
        return {"more": {"files": f"{root}/more.json", "format": "jsonl"}, **given}
    elif what == "a source is removed":
        return {name: source for name, source in given.items() if name != "packed"}
    elif what == "sources are reordered":
        return dict(reversed(given.items()))
    elif what == "a source has another licence":
        return given | {"packed": {**given["packed"], "license": "MIT"}}
    return given


@pytest.mark.parametrize(
    ("what", "most"),
    [
        ("a file is added", 5),
        pytest.param("a file is removed", 4, marks=pytest.mark.slow),
        pytest.param("a file is changed", 5, marks=pytest.mark.slow),
        ("a source is added", 1),
        pytest.param("a source is removed", 0, marks=pytest.mark.slow),
        pytest.param("sources are reordered", 0, marks=pytest.mark.slow),
        pytest.param("a source has another licence", 3, marks=pytest.mark.slow),
    ],
)
def test_only_what_is_touched_is_read_again(tmp_path, corpus, what, most):
    run, given = tmp_path / "run", sources(corpus)
    first = build(run, given, workers=2, max_quarantined=0.1)
    assert len(first.shards) > 12
    seen = len(list(read_events(run)))
    given = change(corpus, given, what)
    grown = build(run, given, workers=2, max_quarantined=0.1)
    done = [(event["phase"], event["task"]) for event in list(read_events(run))[seen:] if event["event"] == "task"]
    assert sum(phase == "read" for phase, _ in done) <= most
    assert sum(phase == "look" for phase, _ in done) <= 1, "the first rows of the source that is touched"
    assert not any(phase == "lines" for phase, _ in done)
    assert contents(grown) == contents(build(tmp_path / "other", given, max_quarantined=0.1))
