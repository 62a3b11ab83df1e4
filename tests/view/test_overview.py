"""The run's page and its progress."""

from __future__ import annotations

import shutil

import orjson
from starlette.testclient import TestClient

from headrace.recipe.load import load_sealed, sealed
from headrace.report.facts import LicenceFacts, SourceFacts, StageFacts, StageSourceFacts
from headrace.report.gather import gather
from headrace.report.warnings import warnings
from headrace.view.app import application
from headrace.view.pages.progress import load_progress
from headrace.view.target import Target


def test_it_shows_what_the_report_counts(client, viewed):
    """Every figure is the report's."""
    told, facts = client.get("/?format=json").json(), gather(viewed)
    assert [s["name"] for s in told["sources"]] == [s.name for s in facts.sources]
    assert {s["name"]: s["removed"] for s in told["sources"]} == {s.name: s.removed for s in facts.sources}
    assert {s["name"]: s["tokens"] for s in told["stages"]} == {s.name: s.tokens for s in facts.stages}
    page = client.get("/").text
    for source in facts.sources:
        for reason, n in source.removed.items():
            assert f"{source.name} → {reason}: {n:,}" in page
    for stage in facts.stages:
        for taken in stage.sources:
            assert f"{taken.name} → {stage.name}: " in page


def test_progress_ends_with_the_run(client):
    """A finished run sends its state once."""
    answer = client.get("/progress")
    assert answer.headers["content-type"].startswith("text/event-stream")
    (event,) = [line for line in answer.text.splitlines() if line]
    told = orjson.loads(event.removeprefix("data: "))
    assert told["running"] is False
    assert "finished" in told["html"]


def test_a_run_that_has_begun_is_shown(viewed, tmp_path):
    """Without any artifact, and again with the first: the page follows the folder."""
    run = tmp_path / "run"
    shutil.copytree(viewed, run)
    kept = run / "aside"
    (run / "artifacts").rename(kept)
    (run / "artifacts").mkdir()
    client = TestClient(application(Target(run)), base_url="http://localhost")
    assert "No documents yet." in client.get("/").text
    documents = next(path for path in kept.iterdir() if path.name.startswith("documents-"))
    shutil.move(documents, run / "artifacts" / documents.name)
    assert client.get("/?format=json").json()["sources"][0]["documents"] > 0


def source(name, documents, kept, removed, quarantined=0):
    return SourceFacts(name, 1, documents, 1, 1, quarantined, kept=kept, removed=removed)


def stage(name, rows, batch, left, *taken):
    return StageFacts(name, rows, 10, rows * 10, 0, left, list(taken), batch)


def taken(name, epochs):
    return StageSourceFacts(name, 1, 1, (0.0, 1.0), epochs, 10, 10)


def test_what_is_warned_of():
    """Each kind at its limit and beyond it."""
    sources = [
        source("half", 10, 5, {"short": 5}),
        source("lost", 10, 4, {"short": 5, "duplicate": 1}),
        source("unread", 3, 3, {}, quarantined=4),
    ]
    stages = [
        stage("tail", 100, 4, 11, taken("four", 4.0), taken("five", 4.5)),
        stage("rest", 10, 4, 0),
        stage("whole", 100, 4, 10),
    ]
    licences = [LicenceFacts("MIT", 2, 20, "half"), LicenceFacts("", 3, 30, "half")]
    told = [(one.kind, one.source, one.stage) for one in warnings(sources, stages, licences)]
    assert told == [
        ("lost", "lost", None),
        ("quarantined", "unread", None),
        ("repeated", "five", "tail"),
        ("unused", None, "tail"),
        ("unused", None, "rest"),
        ("license", "half", None),
    ]
    assert not any(one.kind == "license" for one in warnings(sources, stages, None))


def test_a_source_that_is_not_read_yet(viewed, viewed_corpus, tmp_path):
    """It was added to the recipe, and the run has not come to it: every page shows the others."""
    run = tmp_path / "run"
    shutil.copytree(viewed, run)
    recipe = load_sealed(run / "recipe.yaml")
    more = recipe.sources["prose"].model_copy()
    (run / "recipe.yaml").write_bytes(sealed(recipe.model_copy(update={"sources": {"new": more, **recipe.sources}})))
    client = TestClient(application(Target(run)), base_url="http://localhost")
    for page in ("/stages", "/documents", "/removed", "/corpus"):
        assert client.get(page).status_code == 200, page
    told = client.get("/?format=json")  # its files are not listed yet
    assert told.status_code == 409
    assert "headrace run" in told.json()["fix"]
    assert [source.name for source in gather(run).sources] == [source.name for source in gather(viewed).sources]


def test_a_run_of_another_version(viewed, monkeypatch):
    """It is finished, and the page says what this version would do again."""
    from headrace.evaluate.step import Samples

    monkeypatch.setattr(Samples, "VERSION", Samples.VERSION + 1)
    target = Target(viewed)
    with TestClient(application(target), base_url="http://localhost") as client:
        told = client.get("/?format=json").json()["progress"]
        made = sorted(path.name for path in (viewed / "artifacts").glob("samples-*"))
        assert made
        assert sorted(told["otherwise"]) == made
        page = client.get("/").text
        assert "stopped" not in page
        assert "Another version of headrace made" in page
    monkeypatch.undo()
    assert load_progress(Target(viewed)).otherwise == []
