"""Removed documents one at a time: which, in what order, and what a person's labels say of the filter."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from cleaned_run import EVIL, RECIPE, make, write_corpus
from hypothesis import given
from hypothesis import strategies as st
from pages import Page, parsed, waiting
from starlette.testclient import TestClient

from headrace.flow.keys import keyed, parse_ids, salt
from headrace.recipe.load import load_recipe, sealed
from headrace.view.app import application
from headrace.view.chosen import nearest, nearly, sample
from headrace.view.labels import FILE, Label, add_label, precision, read_labels, wilson
from headrace.view.limits import limits_of
from headrace.view.target import Target

SAME = {"sec-fetch-site": "same-origin"}


@pytest.fixture(scope="module")
def run(cleaned) -> Path:
    return cleaned


@pytest.fixture
def writable(run, tmp_path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def viewer(run: Path) -> TestClient:
    return TestClient(application(Target(run)), base_url="http://localhost", follow_redirects=False)


def rows_of(run: Path) -> list[dict]:
    """Each document with its verdict and measures."""
    target = Target(run)
    parts = [target.documents, target.artifact("verdicts"), target.artifact("measures")]
    told: list[dict] = []
    for shard in range(len(target.documents.shards)):
        tables = [pq.read_table(part.shard_path(shard)).to_pylist() for part in parts]
        told += [{**document, **verdict, **measures} for document, verdict, measures in zip(*tables, strict=True)]
    return told


def page(client: TestClient, address: str) -> Page:
    return parsed(counted(client, address))


def counted(client: TestClient, address: str):
    """An answer, once nothing in it is being counted any more."""
    return waiting(lambda: client.get(address), lambda answer: 'class="pending"' not in answer.text)


def test_counts_are_the_verdicts(run):
    client, rows = viewer(run), rows_of(run)
    found = page(client, "/removed")
    counts = Counter((row["reason"], row["source"]) for row in rows if row["reason"])
    for (reason, source), n in counts.items():
        assert f"{n:,}" in found.all("a", href=f"/removed?reason={reason.replace(':', '%3A')}&source={source}")
    assert f"{sum(row['reason'] == 'short' for row in rows):,}" in found.all("td")
    assert "/removed?reason=quarantined" in found.links()


@pytest.mark.parametrize("source", [None, "code"])
def test_a_sample_is_in_the_order_of_its_keys(run, source):
    rows, target = rows_of(run), Target(run)
    mine = [i for i, row in enumerate(rows) if row["reason"] == "duplicate" and source in (None, row["source"])]
    for seed in (0, 7):
        keys = keyed(salt(seed, "sample", "duplicate"), parse_ids([rows[i]["id"] for i in mine]))
        expected = [mine[k] for k in np.argsort(keys, kind="stable")]
        assert sample(target, "duplicate", source, seed).tolist() == expected
    assert sample(target, "duplicate", source, 0).tolist() != sample(target, "duplicate", source, 7).tolist()


def test_nearest_the_limit_on_both_sides(run):
    rows, target = rows_of(run), Target(run)
    least = {"prose": 120, "code": 60}
    gone = [i for i, row in enumerate(rows) if row["reason"] == "short"]
    found = nearest(target, "short", None).tolist()
    assert sorted(found) == gone
    missing = [least[rows[i]["source"]] - rows[i]["clean_length"] for i in found]
    assert missing == sorted(missing)
    almost = nearly(target, "short", "prose").tolist()
    assert sorted(almost) == [i for i, row in enumerate(rows) if row["keep"] and row["source"] == "prose"]
    over = [rows[i]["clean_length"] - 120 for i in almost]
    assert over == sorted(over)
    assert over[0] >= 0
    assert nearest(target, "nothing", None).tolist() == []


def test_one_document_at_a_time(run):
    client, rows = viewer(run), rows_of(run)
    for reason in {row["reason"] for row in rows if row["reason"]}:
        n = sum(row["reason"] == reason for row in rows)
        for at in (0, n - 1):
            found = page(client, f"/removed?reason={reason}&at={at}")
            assert any(said.startswith(f"{at + 1:,} of {n:,}") for said in found.all("span"))
            assert bool(found.all("a", data_key="k")) == (at > 0)
            assert bool(found.all("a", data_key="j")) == (at < n - 1)
        assert len(page(client, f"/removed?reason={reason}").all("button")) == 2
    row = sample(Target(run), "duplicate", None, 0)[0]
    found = page(client, "/removed?reason=duplicate")
    assert f"/documents/{row}" in found.links()


def test_hostile_documents_stay_text(run):
    client, rows = viewer(run), rows_of(run)
    evil = [i for i, row in enumerate(rows) if EVIL[:8] in row["text"] and row["reason"]]
    assert evil
    for row in evil:
        reason = rows[row]["reason"]
        at = sample(Target(run), reason, None, 0).tolist().index(row)
        found = page(client, f"/removed?reason={reason}&at={at}")
        assert any("<script>alert('x')</script>" in text for text in found.all("pre"))


def test_rows_that_were_not_read(run):
    found = page(viewer(run), "/removed?reason=quarantined&source=prose&at=99")
    assert [text for text in found.all("code") if "cut sho" in text]
    assert any("<b>" in text for text in found.all("code"))


def post(client: TestClient, headers: dict[str, str] | None = None, **form: object):
    form = {name: str(value) for name, value in form.items() if value is not None}
    return client.post("/removed/label", data=form, headers=SAME if headers is None else headers)


def test_labels_are_saved_summed_up_and_taken_back(writable):
    client = viewer(writable)
    order = waiting(lambda: sample(Target(writable), "short", None, 0), lambda rows: rows is not None).tolist()
    for at, label in enumerate(["right", "right", "wrong"]):
        answer = post(client, reason="short", at=at, row=order[at], label=label)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/removed?reason=short&at={at + 1}")
    post(client, reason="short", order="nearest", at=0, row=order[5], label="wrong")
    found = page(client, "/removed?reason=short&at=3")
    assert "67 % rightly removed: 2 of 3 labeled documents" in "".join(found.all("p"))
    assert "1 label of documents that were not sampled" in "".join(found.all("p"))
    held = read_labels(writable)
    assert [one.label for one in held] == ["right", "right", "wrong", "wrong"]
    assert held[0].limit in (
        {"filters.short.min_characters": 120},
        {"filters.short.sources.code.min_characters": 60},
    )
    assert post(client, reason="short", at=2, row=order[2], label="undo").headers["location"].endswith("at=2")
    assert post(client, reason="short", at=1, row=order[1], label="wrong").status_code == 303  # a change of mind
    assert precision(read_labels(writable), None).right == 1
    assert "50 % (9 to 91)" in "".join(page(client, "/removed").all("td"))
    with open(writable / FILE, "ab") as file:
        file.write(b'{"id": "cut sh')  # as a kill leaves it
    post(client, reason="short", at=3, row=order[3], label="right")
    assert [one.label for one in read_labels(writable)][-1] == "right"
    assert precision(read_labels(writable), None).right == 2


def test_a_label_holds_as_long_as_its_limit(writable):
    client = viewer(writable)
    row = int(sample(Target(writable), "short", "prose", 0)[0])
    post(client, reason="short", source="prose", at=0, row=row, label="right")
    assert "100 % rightly" in "".join(page(client, "/removed?reason=short&source=prose").all("p"))
    recipe = writable.parent / "recipe.yaml"
    text = (writable / "recipe.yaml").read_text()
    recipe.write_text(text)
    make(recipe, writable, ["filters.short.min_characters=121"], until="verdicts")
    assert "labeled yet" in "".join(page(viewer(writable), "/removed?reason=short&source=prose").all("p"))


def test_what_is_refused(writable):
    client, rows = viewer(writable), rows_of(writable)
    row = next(i for i, one in enumerate(rows) if one["reason"] == "short")
    other = next(i for i, one in enumerate(rows) if one["reason"] is None)
    good = {"reason": "short", "at": 0, "row": row, "label": "right"}
    for headers in ({}, {"sec-fetch-site": "cross-site"}, {"origin": "http://evil.example"}):
        assert post(client, headers, **good).status_code == 403
    for wrong in ({"row": other}, {"row": 10**9}):
        assert post(client, **good | wrong).status_code == 404
    for wrong in ({"label": "x"}, {"row": "x"}, {"at": -1}, {"order": "x"}, {"more": 1}, {"reason": "x" * 999}):
        assert post(client, **good | wrong).status_code == 400
    assert client.get("/removed/label").status_code == 405
    assert not (writable / FILE).exists()
    assert post(client, reason="short", order="kept", at=0, row=other, label="wrong").status_code == 303


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(writable):
    writable.chmod(0o555)
    try:
        assert "labels are off" in "".join(page(viewer(writable), "/removed?reason=short").all("p"))
    finally:
        writable.chmod(0o755)


def test_labels_off(writable, monkeypatch):
    """As above, whoever runs it."""
    monkeypatch.setattr("headrace.view.labels.os.access", lambda path, mode: False)
    client = viewer(writable)
    found = page(client, "/removed?reason=short")
    assert "labels are off" in "".join(found.all("p"))
    assert not found.all("button")
    row = int(sample(Target(writable), "short", None, 0)[0])
    assert post(client, reason="short", at=0, row=row, label="right").status_code == 409


def test_copies_of_references_are_shown_beside_them(tmp_path):
    folder = tmp_path / "corpus"
    recipe = write_corpus(folder)
    first = next(line for line in (folder / "code.jsonl").read_text().splitlines() if len(line) > 300)
    (folder / "references.jsonl").write_text(first.replace("return", "yield") + "\n")
    overrides = [f"deduplicate.against=[{folder}/references.jsonl]"]
    client = viewer(make(recipe, folder / "run", overrides, until="verdicts"))
    found = page(client, "/removed?reason=reference")
    assert "reference document" in found.all("th")
    assert any("yield" in text for text in found.all("td", class_="code"))
    row = next(href for href in found.links("/documents/") if "?" not in href)
    assert "reference document" in page(client, row).all("th")


def test_a_recipe_that_has_changed_since(writable):
    """Its artifacts are those of the old one until it runs again: pages say so, or show the old ones."""
    text, recipe = RECIPE, write_corpus(writable.parent / "edited")
    for old, new in (
        ("  rules: [{", "  rules: [{name: other, keep: words > 1}]\n  # ["),
        ("  chat: {files", '  more: {files: "${recipe}/prose.jsonl"}\n  chat: {files'),
        ("  code: {files", "  renamed: {files"),
        ("min_characters: 120", "min_characters: 999"),
        ("words > 12", "origin_row > 12"),
        ("decontaminate: {", "# {"),
    ):
        assert old in text
        edited = text.replace(old, new, 1)
        if "renamed" in new:
            edited = edited.replace("code: {epochs", "renamed: {epochs").replace("[code, prose]", "[renamed, prose]")
            edited = edited.replace("[code]", "[renamed]").replace("sources: {code:", "sources: {renamed:")
        recipe.write_text(edited)
        (writable / "recipe.yaml").write_bytes(sealed(load_recipe(recipe)))
        client, rows = viewer(writable), rows_of(writable)
        for reason in {row["reason"] for row in rows if row["reason"]}:
            for order in ("sample", "nearest", "kept"):
                answer = counted(client, f"/removed?reason={reason}&order={order}")
                assert answer.status_code in (200, 404, 409)
        for row in range(0, len(rows), 50):
            assert client.get(f"/documents/{row}").status_code == 200
        assert client.get("/removed").status_code == 200
        for path in limits_of(load_recipe(recipe)):
            answer = counted(client, f"/removed/limit?limit={path}")
            assert answer.status_code in (200, 409), path


def test_limits_that_came_after_the_verdicts(tmp_path):
    """The sidecars that they need are not there yet."""
    folder = tmp_path / "corpus"
    recipe = write_corpus(folder)
    text = recipe.read_text()
    plain = "\n".join(
        line
        for line in text.splitlines()
        if not line.startswith(("decontaminate", "filters", "  short", "  code: {max", "  rules"))
    )
    (folder / "plain.yaml").write_text(plain)
    run = make(folder / "plain.yaml", folder / "run", until="verdicts")
    (run / "recipe.yaml").write_bytes(sealed(load_recipe(recipe)))
    client = viewer(run)
    for path in limits_of(load_recipe(recipe)):
        assert counted(client, f"/removed/limit?limit={path}").status_code == 409, path
    for order in ("sample", "nearest", "kept"):
        assert counted(client, f"/removed?reason=duplicate&order={order}").status_code in (200, 409)
    assert client.get("/documents/5").status_code == 200


def test_wrong_addresses(run):
    client = viewer(run)
    for address in ("reason=nothing", "source=nobody", "reason=short&source=%00"):
        assert client.get(f"/removed?{address}").status_code == 404, address
    for address in ("order=x", "at=-1", "seed=x", "seed=-1", "at=1e3", "x=1", f"reason={'x' * 999}"):
        assert client.get(f"/removed?{address}").status_code == 400, address
    assert client.get("/removed?reason=short&at=99999").status_code == 200


def test_a_sample_of_a_source_does_not_speak_for_all():
    def one(id: str, source: str, label: str, of: str | None, order: str = "sample") -> Label:
        return Label(id, source, "short", {}, label, order, of, 0)  # type: ignore[arg-type]

    labels = [one("1", "a", "right", None), one("2", "b", "wrong", None), one("3", "a", "wrong", "a")]
    labels += [one("4", "a", "right", None, "nearest"), one("5", "a", "wrong", None, "kept")]
    assert (precision(labels, None).right, precision(labels, None).wrong, precision(labels, None).apart) == (1, 1, 2)
    assert (precision(labels, "a").right, precision(labels, "a").wrong, precision(labels, "a").apart) == (1, 1, 1)
    assert (precision(labels, "b").right, precision(labels, "b").wrong) == (0, 1)


@given(st.integers(1, 500), st.data())
def test_wilson_is_where_the_normal_test_rejects(of, data):
    hits = data.draw(st.integers(0, of))
    for bound in wilson(hits, of):
        assert bound is not None
        if 0 < bound < 1:  # the roots of (share - p)^2 = z^2 p (1 - p) / n
            assert abs((hits / of - bound) ** 2 - 1.959964**2 * bound * (1 - bound) / of) < 1e-9


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["right", "wrong", None])), max_size=20))
def test_the_last_label_holds(tmp_path_factory, said):
    folder = tmp_path_factory.mktemp("labels")
    held: dict[str, str] = {}
    for id, label in said:
        add_label(folder, Label(id, "s\ud800", "r", {"x": 1}, label, "sample", None, 0))  # type: ignore[arg-type]
        held.pop(id, None)
        if label:
            held[id] = label
    assert [(one.id, one.label) for one in read_labels(folder)] == list(held.items())
