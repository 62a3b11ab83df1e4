"""A run whose stages join files of repositories, as a user sees it: killed anywhere, replayed, explained, exported."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from small_run import killed_at_event, published

from commands import headrace
from headrace.flow.events import read_events
from headrace.run_folder import artifact
from headrace.sequence.store import open_sequence
from quick import quick

RECIPE = """\
name: grouped
seed: 3
sources:
  code:
    files: "${recipe}/code.jsonl"
    fields: {license: license, repo: repo, path: path, language: language}
    group: {order: dependencies, within: null}
split: {validation: 0.05}
tokenizer: {train: {vocab_size: 600}, special: {add: [<repo_name>, <file_sep>]}}
defaults: {sequence_length: 64}
stages:
  - name: plain
    sources: {code: {epochs: 1.5}}
  - name: headed
    sources: {code: {fim: {rate: 0.5}}}
    group: {format: starcoder2, metadata: 0.5, limit: 600}
    pack: {method: best_fit}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of twelve repositories, whose modules import the one before, and files of no repository."""
    root, rng = tmp_path_factory.mktemp("grouped"), random.Random(1)
    rows = []
    for repo in range(12):
        for k in range(rng.randrange(2, 9)):
            body = "".join(f"value_{repo}_{k}_{i} = {rng.randrange(1000)}\n" for i in range(rng.randrange(3, 30)))
            needs = f"import module{k - 1}\n" if k else ""
            rows.append({
                "text": needs + body, "license": f"L-{repo}", "repo": f"mill/{repo}", "path": f"module{k}.py",
                "language": "python",
            })  # fmt: skip
    rows += [{"text": f"alone = {k}\n" * 9, "license": "L-none"} for k in range(5)]
    rng.shuffle(rows)
    (root / "code.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (root / "recipe.yaml").write_text(RECIPE)
    return root / "recipe.yaml"


@pytest.fixture(scope="module")
def finished(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run") / "run"
    headrace("run", recipe, "--out", run, "--workers", 2)
    return run


def test_the_run_killed_at_every_artifact_ends_with_the_same_bytes(
    recipe: Path, finished: Path, tmp_path: Path
) -> None:
    rng, run = random.Random(0), tmp_path / "run"
    names = [e["artifact"] for e in read_events(finished) if e["event"] == "artifact" and e["state"] == "published"]
    mine = [name for name in names if name.startswith(("groups-", "sequence-"))]
    assert len(mine) == 4
    for name in mine:
        killed_at_event(recipe, run, name, rng.choice([1, 2, 3, 5, 8]))
    headrace("run", recipe, "--out", run, "--workers", 0)
    assert published(run) == published(finished)


def test_every_segment_leads_to_its_file(finished: Path) -> None:
    told = json.loads(headrace("replay", finished, "--stage", "plain", "--step", 1, "--batch", 40, "--json").stdout)
    segments = [segment for row in told["rows"] for segment in row["segments"] if segment["repo"]]
    assert len({segment["path"] for segment in segments}) > 3
    for segment in segments:
        assert segment["license"] == f"L-{segment['repo'].removeprefix('mill/')}"
        assert segment["kind"] in ("plain", "joined")
    joined = [
        (before, one)
        for row in told["rows"]
        for before, one in zip(row["segments"], row["segments"][1:], strict=False)
        if one["kind"] == "joined"
    ]
    assert joined
    for before, one in joined:
        assert before["repo"] == one["repo"]
        # A module follows the one that it imports, or one that is held out.
        assert before["path"] < one["path"]
    asked = json.loads(headrace("why", finished, segments[0]["id"], "--json").stdout)
    assert asked["stages"]["plain"]


def test_documents_without_a_repository_stay_alone(finished: Path) -> None:
    groups = artifact(finished, "groups", "plain").manifest.counts["code"]
    assert groups["alone"] == 5
    ledger = json.loads(headrace("ledger", finished, "--json").stdout)
    assert "plain" in json.dumps(ledger)
    entry = artifact(finished, "sequence", "plain").manifest.extra["ledger"]["sources"]["code"]["groups"]
    assert 0 < entry["alone"] <= 10
    assert entry["documents"] < entry["files"]


@pytest.mark.parametrize("name", quick(["hub", "hdf5", "mds", "webdataset", "litdata"], "hub", "hdf5"))
def test_exports_keep_files_and_what_is_joined(finished: Path, tmp_path: Path, name: str) -> None:
    import headrace as package

    headrace("export", finished, tmp_path / name, "--to", name, "--stage", "plain")
    ours, theirs = open_sequence(artifact(finished, "sequence", "plain").path), package.open_sequence(tmp_path / name)
    assert len(ours) == len(theirs)
    for row in range(len(ours)):
        mine, other = ours.segments(row), theirs.segments(row)
        assert other is not None
        assert (mine["kind"] == other["kind"]).all()
        assert (mine["row"] == other["row"]).all()
    assert np.array_equal(ours.rows(0, len(ours)), theirs.rows(0, len(theirs)))


def test_a_file_that_is_withdrawn_leaves_its_group(recipe: Path, finished: Path, tmp_path: Path) -> None:
    import shutil

    run = tmp_path / "run"
    shutil.copytree(finished, run)
    sequence = open_sequence(artifact(run, "sequence", "plain").path)
    document = int(next(s for s in sequence.segments(5))["row"])
    told = headrace("withdraw", run, f"row:{document}", "--json").stdout
    assert "plain" in told
    headrace("run", recipe, "--out", run, "--workers", 0)
    after = open_sequence(artifact(run, "sequence", "plain").path)
    assert not any(document in after.segments(row)["row"] for row in range(len(after)))
    assert (
        artifact(run, "groups", "plain").path.name == artifact(finished, "groups", "plain").path.name
    )  # nothing is scanned again
