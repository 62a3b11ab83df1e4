"""A choice of documents as a label: given and taken back on the corpus page, found again on others, kept in the run."""

from __future__ import annotations

import html
import re
import shutil

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from headrace.errors import UserError
from headrace.flow.journal import read_journal
from headrace.view.app import application
from headrace.view.labels import FILE, Label, add_label
from headrace.view.named_labels import MOST, SEPARATOR, NamedLabels, give, named_labels, read_named
from headrace.view.target import Target
from quick import examples

SAME = {"sec-fetch-site": "same-origin"}
NAME = "look <b>again</b> & \u202eagain"


@pytest.fixture
def run(viewed, tmp_path):
    return shutil.copytree(viewed, tmp_path / "run")


@pytest.fixture
def own(run):
    target = Target(run)
    target.patience = None  # all figures are waited for
    with TestClient(application(target), base_url="http://localhost", follow_redirects=False) as client:
        yield client


def post(client, data, headers=SAME):
    return client.post("/corpus/label", data=data, headers=headers)


def ids(client, **query: str) -> list[str]:
    return client.get("/corpus/ids", params=query).text.split()


def facet(client, **query: str) -> dict[str, int]:
    told = client.get("/documents", params={"format": "json", **query}).json()["facets"]["label"]
    return {one["value"]: one["documents"] for one in told}


def test_a_choice_is_given_a_label(own, run):
    """It is a facet, a choice of its own, and a list of ids; in part it is taken back. Copies share their ids."""
    every = ids(own)

    def all_of(some):
        return [one for one in every if one in set(some)]

    code, short = ids(own, source="code"), ids(own, source="code", between="bytes::8000")
    assert 0 < len(short) < len(code) < 200
    answer = post(own, {"name": NAME, "source": "code"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/corpus?source=code")
    assert ids(own, label=NAME) == all_of(code)
    assert facet(own) == {NAME: len(all_of(code)), "": len(every) - len(all_of(code))}
    hits = own.get("/documents", params={"label": NAME, "n": 200, "format": "json"}).json()["hits"]
    assert [hit["id"] for hit in hits] == all_of(code)
    post(own, {"name": "second", "between": "bytes::8000", "source": "code"})
    counts = {NAME: len(all_of(code)), "second": len(all_of(short)), "": len(every) - len(all_of(code))}
    assert facet(own) == counts
    assert facet(own, source="prose") == {"": own.get("/corpus?source=prose&format=json").json()["chosen"]}
    both = own.get("/corpus?label=second&format=json").json()
    assert both["chosen"] == len(all_of(short))
    assert {one["value"]: one["documents"] for one in both["words"]["label"]} == {
        name: n for name, n in counts.items() if name
    }
    assert post(own, {"name": NAME, "source": "code", "between": "bytes::8000", "on": "0"}).status_code == 303
    left = set(code) - set(short)
    assert ids(own, label=NAME) == all_of(left)
    sql = "SELECT label, count(*) FROM labels GROUP BY 1 ORDER BY 1"
    answer = own.get("/corpus/query", params={"sql": sql, "format": "json"}).json()["answer"]
    assert answer["rows"] == sorted([[NAME, len(left)], ["second", len(set(short))]])
    lines = list(read_journal(run / FILE))
    assert [(line["name"], line["on"]) for line in lines] == [(NAME, True), ("second", True), (NAME, False)]
    assert lines[1]["chosen"] == {"between": ["bytes::8000"], "source": ["code"]}
    found = named_labels(Target(run)).ids
    assert {name: len(some) for name, some in found.items()} == {NAME: len(left), "second": len(set(short))}


def test_names_are_text(own):
    post(own, {"name": NAME, "source": "code"})
    for address in ("/corpus", "/documents", "/corpus?source=code", "/corpus/query?sql=SELECT label FROM labels"):
        page = own.get(address).text
        assert "<b>again" not in page
        assert "look &lt;b&gt;again" in page


def test_the_form_is_there_for_a_choice(own):
    assert "/corpus/label" not in own.get("/corpus").text
    page = own.get("/corpus?source=code&between=bytes:10:").text
    form = page[page.index('action="/corpus/label"') :]
    fields = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form[: form.index("</form>")])
    told = sorted((name, html.unescape(value)) for name, value in fields)
    assert told == [("between", "bytes:10:"), ("source", "code")]


def test_what_is_said_of_removed_documents_is_a_label_too(own, run):
    every = ids(own)
    hits = own.get("/documents?kept=no&format=json").json()["hits"]
    hit = next(hit for hit in hits if every.count(hit["id"]) == 1)
    add_label(run, Label(hit["id"], hit["source"], hit["reason"], {}, "wrong", "sample", None, 0))
    assert facet(own)["wrongly removed"] == 1
    assert ids(own, label="wrongly removed") == [hit["id"]]
    [found] = own.get("/documents?label=wrongly+removed&format=json").json()["hits"]
    assert found["row"] == hit["row"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        ({"name": "x"}, 400),
        ({"source": "code"}, 400),
        ({"name": "", "source": "code"}, 400),
        ({"name": "a" * 41, "source": "code"}, 400),
        ({"name": "a\x1fb", "source": "code"}, 400),
        ({"name": "x", "source": "code", "other": "1"}, 400),
        ({"name": "x", "between": "nothing:1:2"}, 400),
        ({"name": "rightly removed", "source": "code"}, 409),
    ],
)
def test_wrong_labels_are_said(own, run, data, status):
    assert post(own, data).status_code == status
    assert not (run / FILE).exists()


def test_only_this_servers_pages_give_labels(own, run):
    for headers in ({}, {"sec-fetch-site": "cross-site"}, {"origin": "http://evil.example"}):
        assert post(own, {"name": "x", "source": "code"}, headers).status_code == 403
    assert own.get("/corpus/label?name=x&source=code").status_code in (404, 405)
    assert not (run / FILE).exists()


def test_a_large_choice_takes_several_lines(tmp_path):
    every = [f"{i:032x}" for i in range(2500)]
    give(tmp_path, "many", True, every, {})
    assert len(list(read_journal(tmp_path / FILE))) == 3
    data = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(data[:-40])  # a kill cut the last line short
    found = NamedLabels(read_named(tmp_path))
    assert found.ids["many"].astype(str).tolist() == every[:2000]
    assert found.of(pa.array([every[5], every[2100]])).to_pylist() == ["many", ""]


def test_labels_are_few(tmp_path):
    for k in range(MOST):
        give(tmp_path, f"name {k}", True, ["0" * 32], {})
    with pytest.raises(UserError, match="60 labels"):
        give(tmp_path, "one more", True, ["0" * 32], {})
    give(tmp_path, "name 0", False, ["0" * 32], {})
    give(tmp_path, "one more", True, ["0" * 32], {})
    [told] = NamedLabels(read_named(tmp_path)).of(pa.array(["0" * 32])).to_pylist()
    assert len(told.split(SEPARATOR)) == MOST


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.lists(st.integers(0, 20), max_size=8)), max_size=9))
def test_labels_are_those_of_plain_sets(tmp_path_factory, changes):
    folder = tmp_path_factory.mktemp("labels")
    expected: dict[str, set[str]] = {}
    for name, on, numbers in changes:
        some = [f"{n:032x}" for n in numbers]
        give(folder, name, on, some, {})
        before = expected.get(name, set())
        expected[name] = before | set(some) if on else before - set(some)
    found = NamedLabels(read_named(folder))
    assert {name: set(one.astype(str)) for name, one in found.ids.items()} == {n: s for n, s in expected.items() if s}
    asked = [f"{n:032x}" for n in range(22)]
    told = [SEPARATOR.join(sorted(name for name, some in expected.items() if one in some)) for one in asked]
    assert found.of(pa.array(asked)).to_pylist() == told
