"""Comma- and tab-separated values: quoting, bad records, and a quote that is never closed."""

from __future__ import annotations

import csv
import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading_helpers import bads, items, losses, skips, texts, write

from headrace.errors import UserError

CELLS = st.text(alphabet='ab",;\n é', max_size=8)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8), st.sampled_from([(".csv", ","), (".tsv", "\t")]))
def test_what_the_csv_module_writes_is_read_back(tmp_path_factory, rows, kind):
    suffix, comma = kind
    out = io.StringIO()
    csv.writer(out, delimiter=comma, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([("text", "n"), *rows])
    found = items(write(tmp_path_factory.mktemp("csv") / f"a{suffix}", out.getvalue()))
    assert [(item.text, item.fields["n"]) for item in found] == rows


def test_bad_records_and_where_they_are(tmp_path):
    data = '\ufefftext,n\r\none,1\r\ntwo\r\n\r\n"three\nlines",3\r\n"x"y,4\r\nfour,4\r\n'
    found = items(write(tmp_path / "a.csv.gz", gzip.compress(data.encode())))
    assert texts(found) == ["one", "three\nlines", "four"]
    assert [item.row for item in found] == [1, 2, 3, 4, 6, 7]
    assert [row for row, _ in bads(found)] == [2, 6]
    assert skips(found) == [3]


def test_a_quote_that_is_never_closed_loses_the_rest(tmp_path):
    data = "text\n" + "good\n" * 100 + '"open\n' + "gone\n" * 300
    found = items(write(tmp_path / "a.csv", data))
    assert texts(found) == ["good"] * 100
    ((row, error, lost),) = losses(found)
    assert (row, error) == (101, "a quoted value is not closed")
    assert 1500 <= lost <= 1510


def test_a_missing_column_is_told(tmp_path):
    with pytest.raises(UserError, match="no column 'text'"):
        items(write(tmp_path / "a.csv", "content,n\nx,1\n"))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_a_header_that_is_not_utf8_loses_the_file(tmp_path, encoding):
    data = "text,café\nx,1\n".encode(encoding)
    (tmp_path / "a.csv").write_bytes(data)
    (loss,) = items(tmp_path / "a.csv")
    assert (loss.row, loss.bytes) == (0, len(data))
    assert "not UTF-8" in loss.error


def test_columns_of_one_name_are_told_apart(tmp_path):
    (item,) = items(write(tmp_path / "a.csv", "text,,a,text,\none,2,3,four,5\n"))
    assert item.text == "one"
    assert item.fields == {"": "2", "a": "3", "text_2": "four", "_2": "5"}
