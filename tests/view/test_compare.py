"""Two runs beside each other."""

from __future__ import annotations

import json
import time

import pytest
from starlette.testclient import TestClient

from commands import headrace
from headrace.errors import UserError
from headrace.planning.forecast import plan
from headrace.recipe.load import load_recipe
from headrace.tables import open_documents
from headrace.view.app import application
from headrace.view.target import Target


@pytest.fixture(scope="module")
def other(viewed_corpus, tmp_path_factory):
    """A run with a stricter filter, and without a model."""
    run = tmp_path_factory.mktemp("other") / "run"
    headrace(
        "run",
        viewed_corpus / "recipe.yaml",
        "--out",
        run,
        "--set",
        "filters.short.sources={code: {min_characters: 3000}}",
    )
    return run


@pytest.fixture(scope="module")
def both(viewed, other):
    return TestClient(application(Target(viewed, other=Target(other))), base_url="http://localhost")


def told(client, query=""):
    while (shown := client.get(f"/compare?format=json&{query}").json())["kept"] is None:
        time.sleep(0.02)
    return shown


def kept(run):
    table = open_documents(run, removed=True).to_arrow(["id", "keep", "source", "bytes"]).to_pylist()
    return {row["id"] for row in table if row["keep"]}, table


def test_documents_are_compared_by_id(both, viewed, other):
    """Counts, and all that only one keeps, page by page."""
    (mine, rows), (theirs, _) = kept(viewed), kept(other)
    shown = told(both)
    lost = [i for i, row in enumerate(rows) if row["keep"] and row["id"] not in theirs]
    assert shown["kept"][1:] == [len(lost), sum(r["keep"] and r["id"] not in mine for r in kept(other)[1])]
    assert lost
    listed, after = [], 0
    while after is not None:
        page = told(both, f"only=this&after={after}")
        listed += [one["row"] for one in page["documents"]]
        after = page["next"]
    assert listed == lost


def test_recipes_tokens_and_losses(both):
    """The changed key, the changed counts, the loss of the one that was trained."""
    shown = told(both)
    assert any("3000" in line for line in shown["recipe"])
    assert shown["this"]["losses"]["stage2"]
    assert shown["other"]["losses"] == {}
    page = both.get("/compare").text
    assert "Loss, stage2" in page
    assert "3000" in page


def test_only_runs_are_compared(viewed, other, client):
    """A folder that is none is said at the start; without another run there is no such page."""
    with pytest.raises(UserError, match="Only runs and recipes are compared"):
        Target(viewed, other=Target(next((other / "artifacts").glob("sequence-stage1-*"))))
    assert client.get("/compare").status_code == 404
    assert client.get("/compare?format=json").json()["error"].startswith("There is no page")


def test_recipes_are_compared_by_their_plans(viewed, viewed_corpus):
    """What differs, and tokens as a run has them or a plan expects them; only runs keep documents."""
    changed = viewed_corpus / "changed.yaml"
    changed.write_text((viewed_corpus / "trained.yaml").read_text().replace("layers: 1", "layers: 3"))
    recipe = Target(viewed_corpus / "trained.yaml")
    for target in (recipe, Target(viewed)):
        target.other = Target(changed)
        client = TestClient(application(target), base_url="http://localhost")
        shown = client.get("/compare?format=json").json()
        while shown["other"]["sources"] is None or shown["this"]["sources"] is None:
            time.sleep(0.02)
            shown = client.get("/compare?format=json").json()
        assert [line for line in shown["recipe"] if line[:1] in "+-" and line[1:2] == " "] == [
            "-  layers: 3",
            "+  layers: 1",
        ]
        expected = plan(load_recipe(changed))
        assert shown["other"]["tokens"] == {
            stage.name: {one.source: one.tokens for one in stage.sources} for stage in expected.stages
        }
        for one in expected.sources:
            assert shown["other"]["sources"][one.name] == {
                "read": one.documents,
                "kept": None,
                "removed": None,
                "tokens": one.tokens,
            }
        assert (shown["kept"], shown["this"]["planned"], shown["other"]["planned"]) == (None, target is recipe, True)
        page = client.get("/compare").text
        assert "only a run of a recipe tells" in page
        assert 'class="pending"' not in page
        assert client.get("/").status_code == 200


def test_a_recipe_is_shown_with_its_plan(viewed_corpus, tmp_path):
    """As `headrace plan` tells; a wrong one is told at the start, sources that are not there on the page."""
    target = Target(viewed_corpus / "trained.yaml")
    target.patience = None
    client = TestClient(application(target), base_url="http://localhost")
    expected = plan(load_recipe(viewed_corpus / "trained.yaml"))
    assert client.get("/?format=json").json()["plan"]["stages"] == json.loads(json.dumps(expected.to_json()["stages"]))
    assert f"plan of {expected.recipe}" in client.get("/").text
    assert client.get("/documents").status_code == client.get("/stages").status_code == 404
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("name: x\nsources: {a: {fils: x}}\n")
    with pytest.raises(UserError, match="fils"):
        Target(wrong)
    wrong.write_text("name: x\nsources: {a: {files: nothing.jsonl}}\n")
    target = Target(wrong, other=Target(wrong))
    target.patience = None
    client = TestClient(application(target), base_url="http://localhost")
    assert client.get("/").status_code == 409
    assert "cannot be planned here" in client.get("/compare").text
