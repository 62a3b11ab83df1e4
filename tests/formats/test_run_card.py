"""The data card and the list of documents of a run, in the folder for a hub."""

from __future__ import annotations

import sys
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
import yaml
from exporting import contents, killed_at

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))

from small_pipeline import copied

from headrace.export import Wanted, _step, export, request, requested, write
from headrace.flow.artifact import MANIFEST
from headrace.formats.options import Options
from headrace.formats.run_card import RunCard
from headrace.report.attribution import ATTRIBUTION
from headrace.report.card.card import CHART
from headrace.report.card.facts import made
from headrace.run_folder import open_sequence


@pytest.fixture(scope="module")
def run(once, tmp_path_factory):
    return copied(once, tmp_path_factory.mktemp("card") / "tiny")


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    return export(run, tmp_path_factory.mktemp("hub") / "out", "hub", Wanted(everything=True), workers=0)


def front(folder: Path) -> dict:
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


def test_the_folder_has_its_card(run, folder, tmp_path):
    head = front(folder)
    assert head["license"] == ["cc0-1.0", "other", "unknown"]
    assert [config["config_name"] for config in head["configs"]] == ["first", "second", "documents"]
    said = (folder / "README.md").read_text()
    for title in ("Files", "What was removed, and why", "Licenses", "What is not claimed", "How to make it again"):
        assert f"\n## {title}\n" in said
    assert f"]({CHART})" in said
    assert (folder / CHART).exists()
    loaded = datasets.load_dataset(str(folder), "second", cache_dir=str(tmp_path))
    assert len(loaded["train"]) == len(open_sequence(run, "second"))


def test_every_document_in_the_folder_is_listed(run, folder):
    listed = pq.read_table(folder / ATTRIBUTION)
    files = sorted(folder.glob("documents/*.parquet"))
    assert files
    ids = [i for file in files for i in pq.read_table(file, columns=["id"])["id"].to_pylist()]
    assert sorted(listed["id"].to_pylist()) == sorted(ids)
    seen = {
        s["id"]
        for f in folder.glob("second/*.parquet")
        for row in pq.read_table(f)["segments"].to_pylist()
        for s in row
    }
    used = {row["id"] for row in listed.to_pylist() if row["tokens"]["second"]}
    assert used == seen - {None}


def test_workers_change_nothing(run, folder, tmp_path):
    again = export(run, tmp_path / "out", "hub", Wanted(everything=True), workers=2)
    for name in ("README.md", CHART, ATTRIBUTION, MANIFEST):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_killed_again_and_again_the_folder_is_the_same(run, folder, tmp_path):
    step, out, renames = _step(run, "hub", Wanted(everything=True), Options()), tmp_path / "out", 2
    while killed_at(renames, lambda: write(step, out, workers=0)):
        renames += 2
    assert renames > 4
    assert contents(out) == contents(folder)


def test_one_stage_is_read_without_a_manifest(run, tmp_path):
    out = export(run, tmp_path / "out", "hub", Wanted(stages=["first"]), workers=0)
    assert "tokens in second" not in (out / "README.md").read_text()
    (out / MANIFEST).unlink()
    assert len(open_sequence(out)) == len(open_sequence(run, "first"))


def test_documents_alone_have_a_card_too(run, tmp_path):
    out = export(run, tmp_path / "out", "parquet", Wanted(documents=True), workers=0)
    assert "license" in front(out)
    assert pq.read_table(out / ATTRIBUTION).num_rows == made(run).facts().run.kept


def test_what_is_chosen_has_no_card_of_the_whole(run, tmp_path):
    out = export(run, tmp_path / "out", "parquet", Wanted(documents=True, sources=["prose"]), workers=0)
    assert "license" not in front(out)
    assert not (out / ATTRIBUTION).exists()


def test_the_card_is_part_of_the_identity(run):
    step = _step(run, "hub", Wanted(everything=True), Options())
    assert requested(request(step)) == step
    assert step.card == RunCard.of(run, ("first", "second"), True)
    assert step.card.identity in str(step.params())
    assert str(run) not in str(step.params())
