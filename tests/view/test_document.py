"""The page of a document: what it loads equals what the artifacts say, and hostile text stays text."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from cleaned_run import EVIL, QUESTION, make, write_corpus
from hypothesis import given
from hypothesis import strategies as st
from pages import parsed, waiting
from starlette.testclient import TestClient

from headrace.documents.store import fetch
from headrace.inquiry import ask
from headrace.recipe.schema import Near
from headrace.report.markup import element
from headrace.select.why.side_by_side import compare
from headrace.view.app import application
from headrace.view.pages.document.load import Document, load
from headrace.view.side_by_side import compare_beginnings, draw_comparison
from headrace.view.target import Target
from headrace.view.texts import marked, piece_in


@pytest.fixture(scope="module")
def target(cleaned) -> Target:
    return Target(cleaned)


@pytest.fixture(scope="module")
def client(target) -> TestClient:
    return TestClient(application(target), base_url="http://localhost", follow_redirects=False)


def column(target: Target, kind: str, name: str) -> list:
    made = target.artifact(kind)
    return [
        v for s in range(len(made.shards)) for v in pq.read_table(made.shard_path(s), columns=[name])[name].to_pylist()
    ]


def loaded(target: Target, **query) -> object:
    return waiting(lambda: load(target, Document(**query)), lambda shown: None not in (shown.copies, shown.trained))


@pytest.mark.parametrize("kind", ["kept", "short", "filter:max_line", "filter:wordy", "contaminated", "duplicate"])
def test_a_document_is_told_as_headrace_why_tells_it(target, client, kind):
    reasons = column(target, "verdicts", "reason")
    row = [reason or "kept" for reason in reasons].index(kind)
    told, shown = ask(target.path, f"row:{row}"), loaded(target, row=row)
    assert shown.verdict == told["verdict"]
    assert shown.decisions == [{k: v for k, v in one.items() if k != "excerpt"} for one in told["decisions"]]
    assert shown.text.text == fetch(target.documents, [row], ["text"])["text"][0].as_py()
    assert shown.text.characters == told["document"]["characters"]
    places = {name: [one.placement.to_json() for one in found.shown] for name, found in shown.trained.items()}
    assert {name: places[name] for name in told["stages"]} == told["stages"]
    assert (shown.tokens is None) == (kind != "kept")
    component = column(target, "duplicates", "component")
    group = [i for i, other in enumerate(component) if other is not None and other == component[row]]
    assert [one.row for one in shown.copies.members] == group[:25]
    assert [one.reason for one in shown.copies.members] == [reasons[i] or "" for i in group[:25]]
    if kind == "duplicate":
        assert shown.beside == told["verdict"]["evidence"]["kept_row"]
        assert shown.comparison.jaccard == told["pair"]["jaccard"]
    page = parsed(client.get(f"/documents/{row}"))
    assert page.text("h1").startswith(f"{told['document']['source']}: ")
    assert client.get(f"/documents/{row}?format=json").json()["verdict"]["keep"] is (kind == "kept")


def test_every_hostile_document_stays_text(target, client):
    texts = column(target, "documents", "text")
    rows = [i for i, text in enumerate(texts) if "<script>" in text]
    assert len(rows) >= 3
    for row in rows:
        body = client.get(f"/documents/{row}").text
        assert all(shown in body for shown in ("&lt;script&gt;", "&lt;U+202E&gt;", "␛[31m"))
        assert not any(raw in body for raw in ("<img", "\u202e", "\x1b"))
        parsed(client.get(f"/documents/{row}"))


def test_what_a_benchmark_holds_is_marked(target, client):
    row = column(target, "verdicts", "reason").index("contaminated")
    found = loaded(target, row=row).benchmark
    text = fetch(target.documents, [row], ["text"])["text"][0].as_py()
    assert text[found.start : found.end] in QUESTION
    page = parsed(client.get(f"/documents/{row}"))
    assert page.text("mark") == text[found.start : found.end]
    assert page.all("a", href=f"/documents/{row}#text")


def test_conversations_are_shown_as_such(target, client):
    texts, turns = column(target, "documents", "text"), column(target, "documents", "turns")
    row = next(i for i, one in enumerate(turns) if one is not None and "Say 3" in texts[i])
    shown = loaded(target, row=row)
    assert [one.role for one in shown.turns] == ["user", "assistant"]
    assert shown.turns[0].text == f"Say 3 {EVIL}".strip()
    assert loaded(target, row=row, at=8).turns[0].text == f"Say 3 {EVIL}".strip()[8:]


def test_any_copy_can_be_put_beside(target, client):
    sizes = column(target, "duplicates", "size")
    row = int(np.argmax(sizes))
    group = [one.row for one in loaded(target, row=row).copies.members]
    other = group[-1]
    assert loaded(target, row=row, beside=other).beside == other
    page = parsed(client.get(f"/documents/{row}?beside={other}"))
    assert page.all("a", href=f"/documents/{row}?beside={group[1]}#beside")
    assert client.get(f"/documents/{row}?beside=99999999").status_code == 404
    assert loaded(target, row=row, beside=row).comparison is None


def test_wrong_addresses(client):
    assert client.get("/documents/100000").status_code == 404
    assert client.get("/documents/9007199254740992").status_code == 400
    for wrong in ("-1", "x", "1.5", "%2e%2e", "0?at=-1", "0?nothing=1", "0?beside=x", "0?places=1e9"):
        assert client.get(f"/documents/{wrong}").status_code in (400, 404), wrong


def test_places_beyond_the_last_are_the_last(client):
    assert client.get("/documents/0?at=999999&places=99999&copies=99999").status_code == 200


def test_a_text_of_100_mb_is_cut(tmp_path: Path):
    text = ("é<b>" * 40 + "x" * 7) * 500_000
    data = np.frombuffer(text.encode(), dtype=np.uint8)
    assert len(data) > 100_000_000
    found = piece_in(np.array_split(data, 100), start=50_000_000)
    assert (found.text, found.characters) == (text[50_000_000:50_020_000], len(text))


@given(
    st.text(st.characters(codec="utf-8"), max_size=50),
    st.integers(0, 60),
    st.integers(1, 60),
    st.lists(st.integers(0, 200), max_size=9),
)
def test_pieces_are_slices(text, start, most, cuts):
    """However the text is cut into blocks, also within characters."""
    data = np.frombuffer(text.encode(), dtype=np.uint8)
    found = piece_in(np.split(data, sorted(min(cut, len(data)) for cut in cuts)), start, most)
    assert (found.characters, found.bytes) == (len(text), len(data))
    assert found.text == text[start : start + most]
    assert (found.start, found.end) == (min(start, len(text)), min(start + most, len(text)))


@given(st.text("ab<&\n", max_size=20), st.integers(0, 9), st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30))))
def test_marks_keep_the_text(text, start, marks):
    drawn = marked(text, start, sorted(marks))
    assert drawn.replace("<mark>", "").replace("</mark>", "") == element("p", text)[3:-4]


@given(
    st.lists(st.sampled_from(["a", "b <i>", "c" * 900, ""]), max_size=8),
    st.lists(st.sampled_from(["a", "b <i>", "c" * 899 + "d"]), max_size=8),
)
def test_lines_side_by_side(one, other):
    left, right = "\n".join(one), "\n".join(other)
    shown = compare_beginnings(left, right, Near())
    rows = compare(left, right)
    assert [line.mark for line in shown.lines] == [row.mark for row in rows]
    for line, row in zip(shown.lines, rows, strict=True):
        assert (line.left in (row.left, "…")) or len(row.left) > 600
        for text, spans in ((line.left, line.left_marks), (line.right, line.right_marks)):
            assert all(0 <= a < b <= len(text) for a, b in spans)
        if row.mark == "|":
            assert line.left_marks or line.right_marks
    assert "<i>" not in draw_comparison(shown, "one", "other")


def test_a_comparison_stays_small_and_quick_whatever_the_texts():
    rng = random.Random(1)
    texts = ["\n".join("".join(rng.choice("ab \u202e") for _ in range(600)) for _ in range(400)) for _ in range(2)]
    shown = compare_beginnings(*texts, Near())
    assert shown.left_out > 300
    drawn = draw_comparison(shown, "one", "other")
    assert len(drawn) < 800_000
    assert f"{shown.left_out:,} more lines not shown." in drawn


def test_a_run_underway_has_documents_without_verdicts(tmp_path):
    folder = tmp_path / "corpus"
    target = Target(make(write_corpus(folder), folder / "run", until="documents"))
    client = TestClient(application(target), base_url="http://localhost")
    shown = loaded(target, row=0)
    assert (shown.verdict, shown.decisions, shown.tokens, shown.trained) == (None, [], None, {})
    assert "no verdict yet" in parsed(client.get("/documents/0")).all("span")
    assert "Nothing has been judged yet." in parsed(client.get("/removed")).all("p")
    assert client.get("/removed?reason=short").status_code == client.get("/removed/limit").status_code == 404
    assert "cut sho" in client.get("/removed?reason=quarantined").text


def test_documents_are_found_by_name(target, client):
    def leads(name: str) -> str:
        answer = client.get("/find", params={"name": name})
        return answer.headers["location"] if answer.status_code == 303 else str(answer.status_code)

    ids, sources = column(target, "documents", "id"), column(target, "documents", "source")
    row = len(ids) - 1
    assert leads(ids[row]) == leads(f" {ids[row].upper()} ") == leads(ids[row][:12]) == f"/documents/{row}"
    copies = [i for i, one in enumerate(ids) if ids.count(one) > 1]
    assert leads(ids[copies[-1]]) == f"/documents/{ids.index(ids[copies[-1]])}"
    origin = column(target, "documents", "origin_file"), column(target, "documents", "origin_row")
    assert leads(f"{sources[row]}:{origin[0][row]}:{origin[1][row]}") == leads(f"row:{row}") == f"/documents/{row}"
    bad = column(target, "documents", "origin_row")[sources.index("prose") + sources.count("prose") - 1] + 1
    place = leads(f"prose:{origin[0][0]}:{bad}")
    assert place.startswith("/removed?reason=quarantined&source=prose&at=")
    assert "cut sho" in client.get(place).text
    for name in ("", "x", "zz" * 16, "prose:nothing:1", "row:999999", "\x00", "a" * 5000):
        assert leads(name) == "404", name


def test_benchmark_items_stand_beside_the_document(target, client):
    rows = [row for row, item in enumerate(column(target, "contamination", "overlap")) if item and item >= 0.5]
    shown = loaded(target, row=rows[0])
    assert [hit.item.partition(":")[0] for hit in shown.hits] == ["exam"]
    (hit,) = shown.hits
    assert hit.text == QUESTION
    assert (
        "".join(hit.document.text[a:b] for a, b in hit.document.marks).split()
        == shown.text.text[hit.start : hit.end].split()
    )
    assert "Benchmark items" in client.get(f"/documents/{rows[0]}").text
    parsed(client.get(f"/documents/{rows[0]}"))
    assert loaded(target, row=column(target, "contamination", "overlap").index(None)).hits == []
