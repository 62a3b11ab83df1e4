"""A recipe that reads files of every kind: its run does not depend on workers or kills, needs none of the files when it
is finished, and what is published of it tells nothing about this machine."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "formats"))

import many_files
from exporting import contents, killed_at

from headrace.export import Wanted, export
from headrace.formats.registry import SEQUENCES
from headrace.pipeline import run
from headrace.recipe.load import load_recipe
from headrace.report.card.write import write_card
from headrace.run_folder import artifact, digest, licences, read_graph, status
from headrace.sequence.provenance import beside, replay_rows
from headrace.sequence.store import open_sequence
from headrace.tokens.load import open_decoder
from headrace.verification import examine


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """The folder of the recipe, and another with files that it reads."""
    base = tmp_path_factory.mktemp("someone")
    return base / "recipes", base / "elsewhere"


@pytest.fixture(scope="module")
def recipe(folders) -> Path:
    return many_files.write(*folders)


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("finished") / "run"
    run(load_recipe(recipe), made, workers=0)
    return made


@pytest.mark.slow
def test_workers_and_kills_change_nothing(recipe, finished, tmp_path):
    """Killed when it is about to publish ever more files: through licenses, a Jinja template, an imported sequence."""
    run(load_recipe(recipe), tmp_path / "two", workers=2)
    killed = 0
    for renames in range(10, 200, 25):
        if not killed_at(renames, lambda: run(load_recipe(recipe), tmp_path / "killed", workers=0)):
            break
        killed += 1
    assert killed > 3
    assert digest(finished) == digest(tmp_path / "two") == digest(tmp_path / "killed")


def test_a_finished_run_needs_none_of_its_files(folders, recipe, finished, tmp_path):
    steps, before = [step.name for step in read_graph(finished).all()], status(finished)
    for folder in folders:
        folder.rename(folder.with_name(f"{folder.name} gone"))
    try:
        assert [step.name for step in read_graph(finished).all()] == steps
        assert status(finished) == before
        assert not examine(finished).damaged
        assert write_card(finished)
        for stage in ("first", "chat", "imported"):
            sequence = open_sequence(artifact(finished, "sequence", stage).path)
            documents = None if stage == "imported" else beside(sequence, "documents")
            assert replay_rows(sequence, documents, open_decoder(beside(sequence, "tokenizer")), 0, 2)
            assert export(finished, tmp_path / stage, "mds", Wanted(stages=[stage]), workers=0)
        assert export(finished, tmp_path / "out", "hub", Wanted(stages=["first"], documents=True), workers=2)
    finally:
        for folder in folders:
            folder.with_name(f"{folder.name} gone").rename(folder)


def test_rows_and_documents_have_the_license_that_the_run_found(finished, tmp_path):
    """From license files here, which no record states."""
    out = export(finished, tmp_path / "hub", "hub", Wanted(everything=True), workers=0)
    listed = {row["id"]: row for row in pq.read_table(out / "ATTRIBUTION.parquet").to_pylist()}
    assert {row["license"] for row in listed.values() if row["repo"] in ("owner/repo0", "owner/repo1")} == {
        "Apache-2.0"
    }
    documents = [row for file in out.glob("documents/*.parquet") for row in pq.read_table(file).to_pylist()]
    rows = [row for file in out.glob("first/*.parquet") for row in pq.read_table(file)["segments"].to_pylist()]
    said = [(one["id"], one["license"]) for one in [*documents, *(s for row in rows for s in row if s["id"])]]
    assert len(said) > 100
    assert [license for _, license in said] == [listed[i]["license"] for i, _ in said]
    sequence = open_sequence(artifact(finished, "sequence", "first").path)
    decoder, found = open_decoder(beside(sequence, "tokenizer")), licences(finished)
    replayed = replay_rows(sequence, beside(sequence, "documents"), decoder, 0, 50, found)
    assert all(s.license == listed[s.id]["license"] for row in replayed for s in row.segments if s.id)


def cells(column: pa.ChunkedArray) -> set[str]:
    return {str(value) for value in column.to_pylist()}


def test_what_is_published_tells_nothing_about_this_machine(folders, finished, tmp_path):
    (tmp_path / "card").mkdir()
    write_card(finished, tmp_path / "card/README.md", tmp_path / "card/ATTRIBUTION.parquet")
    export(finished, tmp_path / "hub", "hub", Wanted(everything=True), workers=0)
    export(finished, tmp_path / "parquet", "parquet", Wanted(documents=True), workers=0)
    for to in SEQUENCES:
        if to != "hub":
            export(finished, tmp_path / to, to, Wanted(stages=["chat", "imported"]), workers=0)
    someone = folders[0].parent
    private = [str(someone), someone.name, str(finished), str(Path.home()), f"/{getpass.getuser()}"]
    published = contents(tmp_path)
    for name, data in published.items():
        assert not [word for word in private if word.encode() in data], name
        if name.endswith(".parquet"):
            table = pq.read_table(tmp_path / name)
            told = {text for column in table.columns for text in cells(column)} | {str(table.schema.metadata)}
            assert not [word for word in private for text in told if word in text], name
    assert {"card/README.md", "card/ATTRIBUTION.parquet", "hub/README.md", "hub/manifest.json"} < set(published)
