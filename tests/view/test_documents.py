"""Search against a plain scan of the texts, and hostile queries."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from headrace.tables import open_documents


@pytest.fixture(scope="module")
def rows(viewed):
    """All documents with their verdicts, as one table."""
    return open_documents(viewed, removed=True).to_arrow().to_pylist()


def found(client, address):
    """All pages of a search."""
    hits, joint = [], "&" if "?" in address else "?"
    told = client.get(f"{address}{joint}format=json").json()
    while True:
        hits += told["hits"]
        if told["next"] is None:
            return hits
        told = client.get(f"{address}{joint}format=json&after={told['next']}").json()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("q=import+RAISE", lambda r: "import" in r["text"].lower() and "raise" in r["text"].lower()),
        ("q=import+RAISE&case=1", lambda r: "import" in r["text"] and "RAISE" in r["text"]),
        ("q=def+__init__(self&how=phrase", lambda r: "def __init__(self" in r["text"].lower()),
        ("q=%5C.&how=phrase", lambda r: "\\." in r["text"]),
        ("q=%5Eclass+%5Cw%2BError&how=regex", lambda r: re.match(r"class \w+error", r["text"].lower())),
        ("q=near-copy&how=name", lambda r: r["path"] == "near-copy.py"),
        ("source=tree&source=chat", lambda r: r["source"] in ("tree", "chat")),
        ("language=&n=7", lambda r: r["language"] is None),
        (
            "q=%5B%C3%A9%E4%B8%AD%C3%BC%C3%B6%C2%B7%C2%A9%E2%80%93%5D.%2B&how=regex&case=1",
            lambda r: re.search("[é中üö·©–].", r["text"]),
        ),
        ("kept=no", lambda r: not r["keep"]),
        ("kept=yes&license=CC0-1.0", lambda r: r["keep"] and r["license"] == "CC0-1.0"),
        ("reason=duplicate&q=def", lambda r: r["reason"] == "duplicate" and "def" in r["text"].lower()),
        ("q=nothing+has+thisword", lambda r: False),
    ],
)
def test_documents_found_are_those_of_a_plain_scan(client, rows, query, expected):
    """By text, name and facet, in order, over all pages."""
    hits = found(client, f"/documents?{query}")
    assert [hit["row"] for hit in hits] == [i for i, row in enumerate(rows) if expected(row)]
    for hit in hits:
        row = rows[hit["row"]]
        assert (hit["id"], hit["source"], hit["reason"]) == (row["id"], row["source"], row["reason"])
        assert hit["before"] + hit["match"] + hit["after"] in row["text"]


def test_matches_are_counted(client, rows):
    """How many times, and the first of them."""
    for hit in found(client, "/documents?q=self&how=phrase&case=1"):
        text = rows[hit["row"]]["text"]
        assert hit["matches"] == text.count("self")
        assert hit["match"] == "self"
        assert text.find("self") == len((text.encode()[: text.encode().find(b"self")]).decode())


def test_facets_count_what_the_others_leave(client, rows):
    """Each facet under the choices of the others."""
    while (told := client.get("/documents?source=code&reason=duplicate&format=json").json())["facets"] is None:
        pass
    by_source = Counter(row["source"] for row in rows if row["reason"] == "duplicate")
    assert {one["value"]: one["documents"] for one in told["facets"]["source"]} == by_source
    by_reason = Counter(row["reason"] or "" for row in rows if row["source"] == "code")
    assert {one["value"]: one["documents"] for one in told["facets"]["reason"]} == by_reason


@pytest.mark.parametrize("q", ["(", "a{1001}", "(?P<>a)", "\\", "[z-a]", "(?<=a)b"])
def test_what_is_no_expression_is_said(client, q):
    """With what is wrong."""
    answer = client.get("/documents", params={"how": "regex", "q": q, "format": "json"})
    assert answer.status_code == 400
    assert "no regular expression" in answer.json()["error"]


@pytest.mark.parametrize("q", ["(a*)*b", "^(a+)+$", "(?:)", "$", "x*", "\\pN+", "(b)|(?P<found>a)", "(?P<x>a)(?P<x>t)"])
def test_any_expression_is_answered(client, q):
    """Also what matches nothing, or nothing but emptiness, and what would take others for ever."""
    assert client.get("/documents", params={"how": "regex", "q": q}).status_code == 200
