"""Runs with files that were damaged or are gone: every page says which, or does without."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from headrace.flow.artifact import MANIFEST
from headrace.view.app import application
from headrace.view.target import Target
from quick import quick

PAGES = (
    "/",
    "/stages",
    "/stages/stage2",
    "/stages/stage2/steps/3",
    "/sequences/stage2?row=3",
    "/documents",
    "/documents?q=return",
    "/documents/3",
    "/removed",
    "/removed?reason=duplicate",
    "/removed?reason=short&order=nearest",
    "/removed?reason=quarantined",
    "/removed/limit?limit=filters.short.min_characters&value=400",
    "/copied?q=return+the+value+of+this+thing+now+please+and+nothing+else",
    "/corpus",
    "/corpus/query?sql=SELECT+count(*)+FROM+corpus",
    "/corpus/ids",
    "/progress",
    "/find?name=row:3",
)


def halved(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def overwritten(file: Path) -> None:
    """As many bytes as before."""
    data = bytearray(file.read_bytes())
    for at in range(0, len(data), 7):
        data[at] ^= 0x5A
    file.write_bytes(data)


def answers(run: Path) -> dict[str, tuple[int, str]]:
    """The status and the text of each page; an error of the server is one of the test."""
    target = Target(run)
    target.patience = None
    with TestClient(application(target), base_url="http://localhost", follow_redirects=False) as client:
        found = {page: client.get(page, headers={"accept": "application/json"}) for page in PAGES}
        assert all(client.get(page).status_code == one.status_code for page, one in found.items())
    return {page: (one.status_code, one.text) for page, one in found.items()}


KINDS, HARMS = (
    ["documents", "verdicts", "measures", "duplicates", "tokens", "sequence-stage2"],
    [halved, overwritten, Path.unlink],
)


# Each kind in one way, and one kind in all.
@pytest.mark.parametrize(
    ("kind", "harm"),
    quick(product(KINDS, HARMS), *zip(KINDS, 2 * HARMS, strict=True), *(("documents", harm) for harm in HARMS)),
)
def test_damaged_files_are_named(kind: str, harm: Callable[[Path], None], viewed: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(viewed, tmp_path / "run"))
    folder = next(path for path in (run / "artifacts").iterdir() if path.name.startswith(f"{kind}-"))
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    victim = max(files, key=lambda path: path.stat().st_size)
    harm(victim)
    found = answers(run)
    refused = {page: told for page, (status, told) in found.items() if status not in (200, 303)}
    assert refused
    assert all(victim.name in told for told in refused.values()), refused
    assert "/removed" in refused or kind in ("duplicates", "tokens", "sequence-stage2")


@pytest.mark.parametrize(
    "harm",
    [
        lambda run: shutil.rmtree(run / "checkpoints"),
        lambda run: (run / "events.jsonl").unlink(),
        lambda run: (run / "events.jsonl").write_bytes(b'\xff\x00{"a":1}\n[1]\n"x"\n{"event":5}\n'),
        lambda run: (run / "labels.jsonl").write_bytes(b'\xff{"a"\n{"id":1}\n{"id":"x","source":"y","limit":[]}\n'),
        lambda run: [
            log.write_bytes(
                b'{"step":"x","loss":1}\n{"step":1,"loss":"a"}\n{"step":3,"loss":1,"sources":5}\n\xff\n[]\n'
            )
            for log in (run / "checkpoints").rglob("metrics.jsonl")
        ],
    ],
    ids=["checkpoints", "no events", "events", "labels", "metrics"],
)
def test_other_files_may_be_gone_or_damaged(harm: Callable[[Path], object], viewed: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(viewed, tmp_path / "run"))
    harm(run)
    found = answers(run)
    assert {page for page, (status, _) in found.items() if status >= 400} <= {"/stages/stage2/steps/3"}


@pytest.mark.parametrize("name", ["recipe.yaml", "documents"])
def test_what_everything_depends_on(name: str, viewed: Path, tmp_path: Path) -> None:
    """A server that runs says so on every page."""
    run = Path(shutil.copytree(viewed, tmp_path / "run"))
    target = Target(run)
    with TestClient(application(target), base_url="http://localhost", follow_redirects=False) as client:
        assert client.get("/documents/3").status_code == 200
        folder = next((run / "artifacts").glob("documents-*"))
        file = run / name if name == "recipe.yaml" else folder / MANIFEST
        file.write_text(file.read_text().replace("0", "1"))
        folder.parent.touch()
        for page in PAGES:
            if page == "/progress" and name == "documents":  # it tells what state each artifact is in
                continue
            answer = client.get(page)
            assert answer.status_code in (404, 409), (page, answer.text)
            assert "changed since it was written" in answer.text or name == "documents", page


def test_a_damaged_sequence_hides_no_other_stage(viewed: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(viewed, tmp_path / "run"))
    folder = next((run / "artifacts").glob("sequence-stage2-*"))
    victim = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    victim.unlink()
    target = Target(run)
    target.patience = None
    with TestClient(application(target), base_url="http://localhost") as client:
        told = client.get("/stages?format=json")
        assert told.status_code == 200
        assert {one["name"] for one in told.json()["stages"]} == {stage.name for stage in target.recipe.stages} - {
            "stage2"
        }
        assert told.json()["damaged"].keys() == {"stage2"}
        assert victim.name in told.json()["damaged"]["stage2"]
        assert victim.name in client.get("/stages").text
