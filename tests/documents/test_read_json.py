"""JSON arrays and objects: the scanner against the json module, layouts, broken texts."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading_helpers import bads, items, losses, texts, write

from headrace.documents.readers import streams
from headrace.documents.readers.json_scan import DEPTH, separators

VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.text(alphabet='a"\\[]{},\n ', max_size=6)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=8,
)


@given(st.lists(VALUES, max_size=5), st.integers(1, 9), st.sampled_from([None, 1]))
def test_scanner_finds_the_elements(values, block, indent):
    """Reference: the json module, element by element."""
    data = json.dumps(values, indent=indent).encode()[1:]
    state = np.array([1, 0, 0])
    ends: list[int] = []
    for at in range(0, len(data), block):
        out = np.empty(block, dtype=np.int64)
        piece = np.frombuffer(data[at : at + block], dtype=np.uint8)
        ends += (out[: separators(piece, state, True, out)] + at).tolist()
    assert state[DEPTH] == 0
    starts = [0, *(end + 1 for end in ends)]
    pieces = [data[a:b] for a, b in zip(starts, ends, strict=False)]
    assert [json.loads(p) for p in pieces if p.strip()] == values


ROWS = [{"text": f'{i} "quoted" \\ [{{,}}]', "n": i} for i in range(100)]


@pytest.mark.parametrize("block", [1, 13, 1 << 20])
@pytest.mark.parametrize(
    "data",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        "\ufeff  " + json.dumps(ROWS) + "\n",
        "\n".join(json.dumps(row) for row in ROWS),
        "\n".join(json.dumps(row, indent=2) for row in ROWS),
    ],
    ids=["array", "indented", "mark", "lines", "objects"],
)
def test_layouts(tmp_path, monkeypatch, data, block):
    monkeypatch.setattr(streams, "BLOCK", block)
    monkeypatch.setattr("headrace.documents.readers.json.HEAD", 200)
    found = items(write(tmp_path / "a.json", data))
    assert texts(found) == [row["text"] for row in ROWS]
    assert [item.row for item in found] == list(range(100))
    assert found[7].fields == {"n": 7}


def test_gzip(tmp_path):
    assert len(texts(items(write(tmp_path / "a.json.gz", gzip.compress(json.dumps(ROWS).encode()))))) == 100
    cut = gzip.compress(json.dumps(ROWS).encode())[:-10]
    assert "cut short" in losses(items(write(tmp_path / "b.json.gz", cut)))[-1][1]
    assert "corrupt" in losses(items(write(tmp_path / "c.json.gz", b"nonsense")))[-1][1]


@pytest.mark.parametrize("data", ["", "  ", "[]", "[ ]\n"])
def test_empty(tmp_path, data):
    assert texts(items(write(tmp_path / "a.json", data))) == []
    assert bads(items(write(tmp_path / "a.json", data))) == []


def test_broken_arrays(tmp_path):
    found = items(write(tmp_path / "a.json", '[{"text": "a"}, {"text": nonsense}, 3, {"text": "b"},\n {"text": "c'))
    assert texts(found) == ["a", "b"]
    assert [row for row, _ in bads(found)] == [1, 2]
    assert [(row, error) for row, error, _ in losses(found)] == [(4, "the array is not closed")]
    found = items(write(tmp_path / "b.json", '[{"text": "a"},, {"text": "b"}] more'))
    assert texts(found) == ["a", "b"]
    assert [error for _, error in bads(found)] == ["an empty element"]
    assert [error for _, error, _ in losses(found)] == ["text follows the end of the array"]


def test_a_bad_line_among_lines(tmp_path):
    found = items(write(tmp_path / "a.json", '{"text": "a"}\n{"text": \n{"text": "b"}\n'))
    assert texts(found) == ["a", "b"]
    assert [row for row, _ in bads(found)] == [1]
