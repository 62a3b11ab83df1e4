"""Distributions against plain counting, choices that filter each other, and SQL that may only read."""

from __future__ import annotations

import time

import pyarrow as pa
import pytest

from headrace.documents.store import fetch
from headrace.recipe.columns import DOCUMENT, MEASURES
from headrace.recipe.expressions import parse
from headrace.tables import open_documents


@pytest.fixture(scope="module")
def rows(viewed, target):
    """Documents, verdicts and measures, as one table."""
    table = open_documents(viewed, removed=True).to_arrow()
    measures = fetch(target.artifact("measures"), range(len(table)))
    for name in measures.column_names:
        if name not in table.column_names:
            table = table.append_column(name, measures.column(name))
    assert isinstance(table, pa.Table)
    return table.to_pylist()


def answer(client, address):
    """A page's JSON, once it is counted."""
    while (told := client.get(address, params=[("format", "json")] if "?" not in address else None).json()) is None:
        time.sleep(0.01)
    return told


def corpus(client, query=""):
    return answer(client, f"/corpus?format=json&{query}")


CHOICES = [
    ("", lambda r: True),
    ("source=code&source=prose", lambda r: r["source"] in ("code", "prose")),
    ("between=bytes:2000:9000", lambda r: 2000 <= r["bytes"] < 9000),
    (
        "between=bytes:2000:&between=alphanumeric_share:0.6:0.7",
        lambda r: r["bytes"] >= 2000 and 0.6 <= r["alphanumeric_share"] < 0.7,
    ),
    ("kind=python", lambda r: r["format"] == "python"),
    ("kept=no&language=", lambda r: not r["keep"] and r["language"] is None),
    ("reason=duplicate&reason=short", lambda r: r["reason"] in ("duplicate", "short")),
]


@pytest.mark.parametrize(("query", "chosen"), CHOICES)
def test_what_is_chosen_is_counted(client, rows, query, chosen):
    """Documents and bytes; ids for withdrawing them; each chart counts what the other choices leave."""
    told = corpus(client, query)
    mine = [row for row in rows if chosen(row)]
    assert (told["documents"], told["chosen"], told["bytes"]) == (len(rows), len(mine), sum(r["bytes"] for r in mine))
    assert client.get(f"/corpus/ids?{query}").text.split() == [row["id"] for row in mine]
    for one in told["measures"]:
        if one["chosen"] is not None:
            continue
        values = [row for row in mine if row.get(one["measure"]) is not None]
        if one["measure"] not in rows[0]:  # of duplicates
            continue
        assert sum(map(sum, one["counts"])) == len(values)
        for i, counts in enumerate(one["counts"]):
            low, high = one["edges"][i], one["edges"][i + 1]
            last = i == len(one["counts"]) - 1
            inside = [r for r in values if low <= r[one["measure"]] < high or (last and r[one["measure"]] >= high)]
            if one["log"]:  # edges are exact
                for source, n in zip(told["names"], counts, strict=True):
                    assert n == sum(row["source"] == source for row in inside)


def test_a_chart_keeps_its_own_bins_when_it_is_chosen(client):
    """Its own choice does not filter it, so that another can be made."""
    whole, some = corpus(client), corpus(client, "between=bytes:2000:9000")
    pick = {one["measure"]: one for one in whole["measures"]}["bytes"]
    again = {one["measure"]: one for one in some["measures"]}["bytes"]
    assert again["counts"] == pick["counts"]
    assert again["chosen"] == [2000, 9000]


def test_a_choice_as_a_rule_keeps_the_same(client):
    """The rule that the page offers is one that recipes take, and none is offered for what rules cannot see."""
    told = corpus(client, "between=bytes:2000:9000&source=code&language=")["rule"]
    assert told == "bytes >= 2000 and bytes < 9000 and source in ['code'] and language is None"
    parse(told, {**DOCUMENT, **MEASURES})
    told = corpus(client, "between=bytes:1048577:&between=alphabetic_share:0.1234567890123:")["rule"]
    assert told == "bytes >= 1048577 and alphabetic_share >= 0.1234567890123"
    assert corpus(client, "reason=short")["rule"] is None


@pytest.mark.parametrize(
    "query", ["between=bytes", "between=nothing:1:2", "between=bytes:a:2", "between=bytes:nan:2", "kept=maybe"]
)
def test_wrong_choices_are_said(client, query):
    assert client.get(f"/corpus?format=json&{query}").status_code == 400


def sql(client, text):
    return client.get("/corpus/query", params={"sql": text, "format": "json"})


def test_sql_answers(client, rows):
    """Rows of documents and sidecars are those of the same document."""
    told = sql(client, "SELECT row, id, words, reason FROM corpus ORDER BY row").json()["answer"]
    assert told["rows"] == [[i, r["id"], r["words"], r["reason"]] for i, r in enumerate(rows)][:1000]
    many = sql(client, "SELECT count(*) FROM documents WHERE contains(text, 'import')").json()["answer"]
    assert many["rows"] == [[sum("import" in row["text"] for row in rows)]]


@pytest.mark.parametrize(
    "text",
    [
        "CREATE TABLE x (a INT)",
        "SELECT 1; SELECT 2",
        "COPY corpus TO '/tmp/x.csv'",
        "ATTACH '/tmp/x.db'",
        "SET threads = 8",
        "PRAGMA enable_profiling",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM read_parquet('http://localhost/x.parquet')",
        "SELECT getenv('HOME')",
        "SELECT nothing FROM corpus",
        "SELECT",
        "\x00",
        "EXPORT DATABASE '/tmp/x'",
        "CALL duckdb_settings()",
    ],
)
def test_sql_may_only_read_the_run(client, text):
    """Refused in DuckDB's words or ours, never a failure of the server."""
    found = sql(client, text)
    assert found.status_code == 400, found.json()


def test_a_query_without_end_is_stopped(client, monkeypatch):
    """By time; the next one is answered."""
    monkeypatch.setattr("headrace.view.sql.SECONDS", 0.3)
    found = sql(client, "SELECT count(*) FROM range(1000000) a, range(1000000) b")
    assert found.status_code == 400
    assert "0.3 s" in found.json()["error"]
    assert sql(client, "SELECT 1").json()["answer"]["rows"] == [[1]]


def test_long_cells_are_cut(client):
    found = sql(client, "SELECT repeat('x', 100000) AS a").json()["answer"]
    assert len(found["rows"][0][0]) < 5000


def test_long_answers_are_cut(client):
    """Whatever is long: rows, columns or cells. The page stays a page."""
    for text in (
        "SELECT repeat('x', 3000) AS a FROM range(1000)",
        "SELECT COLUMNS(*) FROM corpus a, corpus b, corpus c",
    ):
        found = client.get("/corpus/query", params={"sql": text})
        assert found.status_code == 200
        assert len(found.text) < 6_000_000
        assert "The first" in found.text


def test_a_list_of_ids_is_whole_or_refused(client, rows, monkeypatch):
    """A part of them, for `headrace withdraw`, would be worse than none."""
    monkeypatch.setattr("headrace.view.choice.MOST_IDS", len(rows))
    assert client.get("/corpus/ids").text.split() == [one["id"] for one in rows]
    monkeypatch.setattr("headrace.view.choice.MOST_IDS", len(rows) - 1)
    answer = client.get("/corpus/ids", headers={"accept": "application/json"})
    assert (answer.status_code, "More than" in answer.json()["error"]) == (409, True)
