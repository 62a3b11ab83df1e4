"""Documents are taken out after the fact: all that are named and no other, and the steps that saw them are told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from headrace import pipeline, run_folder
from headrace.cli.app import app
from headrace.flow.events import read_events
from headrace.recipe.load import load_recipe
from headrace.sequence.store import open_sequence

ROWS = [
    *({"text": f"document {i} says {i * i} and {i**3} in many words", "repo": f"r{i % 4}"} for i in range(40)),
    {"text": "the same text in two repositories, word for word", "repo": "r1", "license": "GPL-3.0"},
    {"text": "the same text in two repositories, word for word", "repo": "other", "license": "MIT"},
]
RECIPE = {
    "name": "small",
    "deduplicate": {"near": None},
    "tokenizer": {"train": {"vocab_size": 400}},
    "stages": [
        {"name": "one", "sequence_length": 32, "sources": {"s": {"epochs": 2}}, "train": {"batch": 4}},
        {"name": "two", "sequence_length": 32, "sources": {"s": {"slice": [0, 0.5]}}, "train": {"batch": 4}},
    ],
}


def make(folder: Path, run: Path) -> None:
    sources = {"s": {"files": str(folder / "rows.jsonl")}}
    pipeline.run(load_recipe({**RECIPE, "sources": sources}), run, workers=0, memory=1 << 30)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("withdrawal")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    make(folder, folder / "run")
    return folder


@pytest.fixture
def run(finished, tmp_path) -> Path:
    shutil.copytree(finished / "run", tmp_path / "run")
    return tmp_path / "run"


def said(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["withdraw", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done.output


def verdicts(run: Path) -> list[dict]:
    artifact = run_folder.artifact(run, "verdicts")
    return pq.read_table(artifact.shard_path(0)).to_pylist()


def seen(run: Path, stage: str) -> list[tuple[int, int]]:
    """(row of the sequence, dense documents row) of every stretch, read one by one."""
    sequence = open_sequence(run_folder.artifact(run, "sequence", stage).path)
    return [
        (row, int(part["row"])) for row in range(len(sequence)) for part in sequence.segments(row) if part["kind"] != 4
    ]


def test_a_repository_is_taken_out_and_nothing_else(finished, run):
    before = verdicts(run)
    told = json.loads(said(run, "--repo", "r1", "--json"))
    mine = [row for row, document in enumerate(ROWS) if document["repo"] == "r1"]
    assert [document["row"] for document in told["documents"]] == mine
    for stage in ("one", "two"):
        rows = {row for row, document in seen(run, stage) if document in mine}
        assert told["stages"].get(stage, {"rows": []})["rows"] == sorted(rows)
    events = len(list(read_events(run)))
    make(finished, run)
    after = verdicts(run)
    assert [row for row, verdict in enumerate(after) if verdict["reason"] == "withdrawn"] == mine
    assert json.loads(after[mine[0]]["evidence"]) == {"by": "repo", "value": "r1"}
    # The copy of what is withdrawn takes its place; all else is as it was.
    assert (before[41]["reason"], after[41]["reason"]) == ("duplicate", None)
    assert [v for r, v in enumerate(after) if r not in {*mine, 41}] == [
        v for r, v in enumerate(before) if r not in {*mine, 41}
    ]
    for stage in ("one", "two"):
        assert not {document for _, document in seen(run, stage)} & {*mine}
    made = {e["artifact"].split("-")[0] for e in list(read_events(run))[events:] if e.get("state") == "published"}
    assert made == {"verdicts", "tokenizer", "tokens", "sequence"}


def test_copies_are_told_and_taken_out_when_asked(finished, run):
    assert "--copies" in said(run, "--license", "GPL-3.0", "--dry-run")
    assert not run_folder.read_withdrawn(run)
    told = json.loads(said(run, "--license", "GPL-3.0", "--json"))
    assert (told["copies"], len(told["documents"])) == ([41], 1)
    said(run, "--license", "GPL-3.0", "--copies")
    make(finished, run)
    assert [v["reason"] for v in verdicts(run)[40:]] == ["withdrawn", "withdrawn"]


def test_documents_by_id_by_place_and_from_a_list(run, tmp_path):
    ids = pq.read_table(run_folder.artifact(run, "documents").shard_path(0), columns=["id"])["id"].to_pylist()
    (tmp_path / "list.txt").write_text(f"{ids[3]}\n\n{ids[5][:12]}\n")
    told = json.loads(said(run, "s:rows.jsonl:7", "--from", tmp_path / "list.txt", "--json"))
    assert [document["row"] for document in told["documents"]] == [3, 5, 7]
    assert set(run_folder.read_withdrawn(run).ids) == {ids[3], ids[5], ids[7]}
    said(run, ids[9])
    assert len(run_folder.read_withdrawn(run).ids) == 4  # lists add up


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--repo", "r9"], "No document has the repository 'r9'"),
        (["--license", "mit"], "No document has the licence 'mit'"),
        (["zz"], "does not name a document"),
        ([], "Nothing to withdraw"),
        (["--from", "/nowhere"], "cannot be read"),
    ],
)
def test_what_names_nothing_is_an_error_and_changes_nothing(run, arguments, words):
    done = CliRunner().invoke(app, ["withdraw", str(run), *arguments])
    assert done.exit_code == 2
    assert words in done.output
    assert not run_folder.read_withdrawn(run)


def test_a_recipe_may_name_them_itself(finished, tmp_path):
    recipe = {**RECIPE, "sources": {"s": {"files": str(finished / "rows.jsonl")}}, "withdrawn": {"repos": ["r2", "r1"]}}
    pipeline.run(load_recipe(recipe), tmp_path / "run", workers=0, memory=1 << 30, until="verdicts")
    reasons = [verdict["reason"] for verdict in verdicts(tmp_path / "run")]
    assert reasons.count("withdrawn") == sum(row["repo"] in ("r1", "r2") for row in ROWS)
    assert np.unique([r for r in reasons if r]).tolist() == ["withdrawn"]
