"""Conversations in their three shapes and four containers, and where their turns lie in the text."""

from __future__ import annotations

import json

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reading_helpers import bads, items, listed, write

from headrace.documents.rows import RowMaker

SHAREGPT = {
    "conversations": [{"from": "system", "value": "S"}, {"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}],
    "id": 7,
}
OPENAI = {
    "messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": [{"type": "text", "text": "A"}]}]
}
ALPACA = {"instruction": "Q", "input": "I", "output": "A"}
PLAIN = {"instruction": "Q", "input": " ", "response": "A", "system_prompt": "S"}
TURNS = [
    [("system", "S"), ("user", "Q"), ("assistant", "A")],
    [("user", "Q"), ("assistant", "A")],
    [("user", "Q\n\nI"), ("assistant", "A")],
    [("system", "S"), ("user", "Q"), ("assistant", "A")],
]
ROWS = [SHAREGPT, OPENAI, ALPACA, PLAIN]


@pytest.mark.parametrize("container", ["json", "jsonl"])
def test_shapes(tmp_path, container):
    data = json.dumps(ROWS) if container == "json" else "\n".join(map(json.dumps, ROWS))
    found = items(write(tmp_path / f"a.{container}", data), format="chat")
    assert [item.turns for item in found] == TURNS
    assert found[0].fields == {"id": 7}


@pytest.mark.parametrize("container", ["parquet", "arrow"])
def test_tables(tmp_path, container):
    table = pa.Table.from_pylist([SHAREGPT])
    path = tmp_path / f"a.{container}"
    if container == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table)
    assert [item.turns for item in items(path, format="chat")] == TURNS[:1]


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"text": "x"}, "no conversation in the fields text"),
        ({"conversations": []}, "no turn of the assistant"),
        ({"conversations": [{"from": "human", "value": "x"}]}, "no turn of the assistant"),
        ({"conversations": [{"from": "oracle", "value": "x"}]}, "the role 'oracle'"),
        ({"conversations": ["x"]}, "a turn is text, not an object"),
        ({"messages": [{"role": "assistant", "content": None}]}, "holds null, not text"),
        ({"instruction": "x"}, "no conversation"),
        (["x"], "holds a list"),
    ],
)
def test_bad_rows(tmp_path, row, error):
    ((_, message),) = bads(items(write(tmp_path / "a.jsonl", json.dumps(row)), format="chat"))
    assert error in message


def test_turns_are_normalised_before_they_are_joined(tmp_path):
    decomposed = "e\u0301"
    row = {
        "messages": [{"role": "user", "content": decomposed}, {"role": "assistant", "content": "\u0301" + decomposed}]
    }
    path = write(tmp_path / "a.jsonl", json.dumps(row))
    (record,) = items(path, format="chat")
    made, characters = RowMaker("s", listed(path, format="chat")[1], "nfc").make("a.jsonl", record)
    text = made[1].decode()
    assert text == "\u00e9\n\n\u0301\u00e9"
    assert characters == len(text)
    spans = orjson.loads(made[-1])["turns"]
    assert [(s["role"], text[s["start"] : s["end"]]) for s in spans] == [
        ("user", "\u00e9"),
        ("assistant", "\u0301\u00e9"),
    ]


def test_real_instructions(shared):
    found = items(shared / "fixtures" / "instruct" / "code_alpaca_2k.json", format="chat")
    assert len(found) == 2017
    assert bads(found) == []
