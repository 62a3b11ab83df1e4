"""Measures: what each column holds, and the step through the real runner."""

from __future__ import annotations

import json
import os
from pathlib import Path

import measure_graph
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from measure_graph import documents_batch, recipe_of

from headrace.documents.ids import content_id
from headrace.select.clean import clean_text
from headrace.select.measures.formats import format_of
from headrace.select.measures.step import GENERATED_MARKS, SCHEMA, Measures, measure


def one(text: str, **row: str) -> dict:
    return measure(documents_batch([{"text": text, **row}])).to_pylist()[0]


def test_a_document_measured_by_hand() -> None:
    text = "def f(x):\n    return x + 1  # é\n"
    assert one(text, language="Python") == {
        "characters": 32,
        "bytes": 33,
        "words": 8,
        "lines": 2,
        "clean_length": len(clean_text(text)),
        "clean_length_no_spaces": len("deffxreturnx1é"),
        "max_line_length": 21,
        "mean_line_length": 15.0,
        "alphanumeric_share": 14 / 32,
        "alphabetic_share": 13 / 32,
        "encoded_share": 0.0,
        "generated_mark": None,
        "xml_header": False,
        "format": "python",
        "visible_characters": None,
        "visible_share": None,
    }


def test_an_empty_document_has_no_shares() -> None:
    row = one("", path="a.html")
    assert [row[name] for name in ("characters", "lines", "max_line_length", "clean_length")] == [0, 0, 0, 0]
    assert row["mean_line_length"] == 0
    assert {row[name] for name in ("alphanumeric_share", "alphabetic_share", "encoded_share", "visible_share")} == {
        None
    }
    assert row["visible_characters"] == 0


@pytest.mark.parametrize("mark", GENERATED_MARKS)
def test_marks_of_generated_files_are_seen_in_five_lines(mark: str) -> None:
    shouted = f"// {mark.upper()}, really\n"
    assert one("\n" * 4 + shouted)["generated_mark"] == mark
    assert one("\n" * 5 + shouted)["generated_mark"] is None
    assert one("\r\n" * 4 + shouted)["generated_mark"] == mark


def test_no_other_letter_folds_into_a_mark() -> None:
    """The kernel folds ASCII only: U+0130 and U+212A are the letters that become ASCII in lower case."""
    letters = {c for c in map(chr, range(128, 0x110000)) if c.lower()[0].isascii()}
    assert letters == {"\u0130", "\u212a"}
    assert not any("k" in mark or mark.endswith("i") for mark in GENERATED_MARKS)


def test_xml_declarations_count_in_the_first_hundred_characters() -> None:
    declaration = '<?xml version="1.0"?>'
    assert one("é" * 86 + declaration)["xml_header"]
    assert not one("é" * 87 + declaration)["xml_header"]


def test_formats() -> None:
    assert format_of("C#", None) == "c#"
    assert format_of("Plain Text", "a.html") == "text"
    assert format_of(None, "a/B.HTML") == "html"
    assert format_of(None, "a/b.py") is None
    assert format_of("", "x.yml") == "yaml"
    assert format_of(None, None) is None


ROWS = [
    {"text": "def f():\n    return 1\n" * 20, "path": "a.py", "language": "python"},
    {"text": "<p>" + "tea &amp; cake " * 20, "path": "b.html"},
    {"text": ""},
    {"text": "short é İ Σ \u2028 line"},
    {"text": "A" * 5000},
    {"text": '<?xml version="1.0"?>\n<!-- DO NOT EDIT -->'},
    {"text": "{}", "path": "c.json"},
]


def test_the_step_is_aligned_and_the_same_for_any_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    runs = [measure_graph.coordinate(tmp_path / str(n), ROWS, recipe_of(), n) for n in (1, 2)]
    artifact = runs[0]["measures"]
    assert artifact.manifest.to_json() == runs[1]["measures"].manifest.to_json()
    assert artifact.manifest.counts == {"documents": len(ROWS)}
    assert [s["rows"] for s in artifact.shards] == [s["rows"] for s in runs[0]["documents"].shards]
    tables = [pq.read_table(artifact.shard_path(i)) for i in range(len(artifact.shards))]
    assert tables[0].schema.equals(SCHEMA)
    assert pa.concat_tables(tables).to_pylist() == measure(documents_batch(ROWS)).to_pylist()


def test_golden_measures() -> None:
    """If this fails and the change is meant, raise ``Measures.VERSION`` and take the new digest over."""
    rows = [row for row in ROWS if row["text"].isascii()]  # others change with the version of Unicode
    values = json.dumps(measure(documents_batch(rows)).to_pylist()).encode()
    assert (Measures.VERSION, content_id(values)) == (1, "15eed17f05fae0b72915ddf58070a719")
