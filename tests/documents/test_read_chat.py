"""Conversations in their three shapes and four containers; nothing of a record is lost unsaid."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reading_helpers import bads, items, listed, write

from headrace.documents.readers.base import Bad, Message, Tally
from headrace.documents.readers.conversations import conversation
from headrace.documents.rows import RowMaker
from headrace.recipe.schema import Source
from quick import examples

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
USER = {"role": "user", "content": "Q"}
ANSWER = {"role": "assistant", "content": "A"}


def said(record: Any) -> list[tuple[str, str]]:
    assert not isinstance(record, Bad), record.error
    return [(message.role, message.content) for message in record.turns]


def read(row: Any) -> Any:
    return conversation(0, row, Tally())


@pytest.mark.parametrize("container", ["json", "jsonl"])
def test_shapes(tmp_path, container):
    data = json.dumps(ROWS) if container == "json" else "\n".join(map(json.dumps, ROWS))
    found = items(write(tmp_path / f"a.{container}", data), format="chat")
    assert [said(item) for item in found] == TURNS
    assert found[0].fields == {"id": 7}


@pytest.mark.parametrize("container", ["parquet", "arrow"])
def test_tables(tmp_path, container):
    # Every turn has the keys of any turn: what is null is not there.
    first = {**SHAREGPT, "messages": None, "tools": None}
    first["conversations"] = [{**turn, "images": None, "loss": None} for turn in SHAREGPT["conversations"]]
    calls = [{"from": "gpt", "value": "A", "images": ["f"], "loss": False}]
    table = pa.Table.from_pylist([first, {"conversations": calls}])
    path = tmp_path / f"a.{container}"
    if container == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table)
    good, bad = items(path, format="chat")
    assert said(good) == TURNS[0]
    assert good.turns[0] == Message("system", "S", None, {})
    assert "turn 1 (assistant) has 'images'" in bad.error


def last(**turn: Any) -> dict[str, Any]:
    return {"messages": [USER, {"role": "assistant", "content": "A", **turn}]}


def parts(*content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(content)}, ANSWER]}


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"text": "x"}, "no conversation in the fields text"),
        ({"conversations": []}, "no turn of the assistant"),
        ({"messages": "[]"}, "the field 'messages' holds text, not a list of turns"),
        ({"conversations": [{"from": "human", "value": "x"}]}, "no turn of the assistant"),
        ({"conversations": [{"from": "oracle", "value": "x"}]}, "the role 'oracle'"),
        ({"conversations": [{"value": "x"}]}, "the role None"),
        ({"conversations": ["x"]}, "a turn is text, not an object"),
        ({"conversations": [["x", "y"]]}, "a turn is a list"),
        ({"messages": [{"role": "assistant", "content": None}]}, "holds null, not text"),
        ({"messages": [USER, {"role": "assistant", "content": 5}]}, "turn 2 (assistant) holds a number, not text"),
        ({"messages": [USER, {"role": "assistant", "content": {"text": "A"}}]}, "holds an object, not text"),
        ({"messages": [USER, ANSWER, {"role": "oracle", "content": "x"}]}, "turn 3 has the role 'oracle'"),
        ({"messages": [USER, {"role": "assistant", "content": " \n"}]}, "no turn of the assistant that says anything"),
        ({"instruction": "Q", "output": ""}, "no turn of the assistant that says anything"),
        ({"instruction": "x"}, "no conversation"),
        ({"instruction": "Q", "input": 5, "output": "A"}, "the field 'input' holds a number, not text"),
        ({"instruction": "Q", "input": ["I"], "output": "A"}, "the field 'input' holds a list, not text"),
        ({"instruction": 5, "output": "A"}, "the field 'instruction' holds a number"),
        ({"instruction": "Q", "output": {"a": 1}}, "the field 'output' holds an object"),
        ({"prompt": [USER], "completion": [ANSWER]}, "the field 'prompt' holds a list"),
        ({**OPENAI, "system": ["S"]}, "the field 'system' holds a list"),
        ({**OPENAI, "tools": ["f"]}, "the field 'tools' is not a list of objects"),
        ({**OPENAI, "tools": "f"}, "the field 'tools' is text, but not JSON"),
        ({**OPENAI, "functions": [{"name": "f"}]}, "the record has 'functions', which is not read"),
        ({**OPENAI, "images": ["a.png"]}, "the record has 'images'"),
        ({**ALPACA, "history": [["q", "a"]]}, "the record has 'history'"),
        ({**OPENAI, "train_on_input": True}, "the record has 'train_on_input'"),
        (last(tool_calls=[{"id": "1"}]), "a tool call of turn 2 (assistant) names no function"),
        (last(content=None, tool_calls="f"), "the tool calls of turn 2 (assistant) is text, but not JSON"),
        ({"messages": [{**USER, "tool_calls": [{"name": "f"}]}, ANSWER]}, "turn 1 (user) has 'tool_calls'"),
        (last(content="", function_call={"name": "f"}), "'function_call'"),
        (last(toolCalls=[{"id": "1"}]), "'toolCalls'"),
        (last(reasoning_content="hm"), "'reasoning_content'"),
        (last(thinking="hm"), "'thinking'"),
        (last(refusal="no"), "'refusal'"),
        (last(audio={"id": "1"}), "'audio'"),
        (last(recipient="browser"), "'recipient'"),
        (last(channel="analysis"), "'channel'"),
        (last(weight=0.5), "has 'weight': 0.5"),
        (last(loss="false"), "has 'loss': 'false'"),
        (last(loss=True, weight=0), "contradict"),
        (parts({"type": "image_url", "image_url": {"url": "u"}}), "part 1 of turn 1 (user) has the type 'image_url'"),
        (parts({"type": "text", "text": None}), "part 1 of turn 1 (user) has null as its 'text'"),
        (parts("Q", None), "part 2 of turn 1 (user) is null"),
        (parts(["Q"]), "is a list, not text"),
        (parts({"type": "text", "text": 5}), "has a number as its 'text'"),
        (parts({"text": "Q", "audio": "x"}), "has 'audio'"),
        (parts({"image_url": {"url": "u"}}), "has 'image_url'"),
        (last(content=None, words="A", id=3), "turn 2 (assistant) holds null, not text; its other keys: words, id"),
        (["x"], "holds a list"),
        (None, "holds null"),
    ],
)
def test_bad_rows_are_told_and_shown(tmp_path, row, error):
    data = json.dumps(row)
    found = items(write(tmp_path / "a.jsonl", data), format="chat")
    ((_, message),) = bads(found)
    assert error in message
    assert found[0].excerpt == orjson.dumps(row).decode()[:200], "the whole row, as it came"


@pytest.mark.parametrize("type_", ["text", "input_text", "output_text", None])
def test_parts_of_text(type_):
    part = {"text": "Q"} if type_ is None else {"type": type_, "text": "Q"}
    record = read(parts(part, "R", {"text": "S", "type": None, "annotations": [1]}))
    assert record.turns[0] == Message("user", "Q\n\nR\n\nS", None, {"content": [{}, {}, {"annotations": [1]}]})


@pytest.mark.parametrize(
    ("turn", "loss"),
    [
        ({"loss": False}, False),
        ({"weight": 0}, False),
        ({"weight": 0.0}, False),
        ({"train": False}, False),
        ({"training": False}, False),
        ({"loss": True}, True),
        ({"weight": 1.0, "loss": None}, True),
        ({}, None),
    ],
)
def test_marks_of_loss(turn, loss):
    record = read({"messages": [USER, {**ANSWER, **turn}, USER, ANSWER]})
    assert [message.loss for message in record.turns] == [None, loss, None, None]
    assert all(not message.fields for message in record.turns)


def test_a_weight_of_one_says_nothing_of_the_user():
    record = read({"messages": [{**USER, "weight": 1}, {**USER, "weight": 0}, {**USER, "loss": True}, ANSWER]})
    assert record.turns[:3] == [
        Message("user", "Q", None, {"weight": 1}),
        Message("user", "Q", False, {}),
        Message("user", "Q", True, {}),
    ]


def test_what_is_no_part_of_what_is_said_stays():
    turns = [{**USER, "name": "ann", "id": 3, "tool_calls": [], "refusal": None}, {**ANSWER, "channel": "final"}]
    row = {"messages": turns, "turns": 2, "tools": "[]", "instruction": "x", "system": ""}
    record = read(row)
    assert [message.fields for message in record.turns] == [
        {"name": "ann", "id": 3, "tool_calls": []},
        {"channel": "final"},
    ]
    assert record.fields == {key: value for key, value in row.items() if key != "messages"}
    made, _ = RowMaker("s", Source(files="a"), "nfc").make("a.jsonl", record)
    assert orjson.loads(made[-2])["turns"] == 2, "a field that is called turns is the record's own"
    assert orjson.loads(made[-1])[0] == {"role": "user", "start": 0, "end": 1, "fields": record.turns[0].fields}


# Every string and number is unlike any other, so that it can be looked for in what was made of the record.
class _Unique:
    def __init__(self) -> None:
        self.n = 0

    def text(self) -> str:
        self.n += 1
        return f"v{self.n}v"

    def leaf(self, draw: Any) -> Any:
        text = self.text()
        return draw(st.sampled_from([text, text, self.n * 1000 + 7, None, "", True]))

    def value(self, draw: Any, depth: int = 2) -> Any:
        shape = draw(st.sampled_from(["leaf", "leaf", "leaf", "list", "dict"] if depth else ["leaf"]))
        if shape == "leaf":
            return self.leaf(draw)
        if shape == "list":
            return [self.value(draw, depth - 1) for _ in range(draw(st.integers(0, 3)))]
        keys = draw(st.lists(st.sampled_from(["type", "text", "k", "image_url", "refusal"]), max_size=3, unique=True))
        return {key: self.value(draw, depth - 1) for key in keys}


TURN_KEYS = ["from", "value", "role", "content", "loss", "weight", "train", "name", "id", "tool_calls", "thinking", "x"]
RECORD_KEYS = [
    "conversations", "messages", "instruction", "input", "output", "prompt", "response", "system", "system_prompt",
    "turns", "id", "tools", "images", "history", "text", "license",
]  # fmt: skip


@st.composite
def records(draw: Any) -> dict[str, Any]:
    unique = _Unique()

    def turn() -> Any:
        if draw(st.integers(0, 9)) == 0:
            return unique.value(draw)
        made = {}
        for key in draw(st.lists(st.sampled_from(TURN_KEYS), max_size=4, unique=True)):
            made[key] = unique.value(draw)
        made[draw(st.sampled_from(["from", "role"]))] = draw(
            st.sampled_from(["human", "user", "gpt", "assistant", "assistant", "system", "tool"])
        )
        text = unique.text()
        made[draw(st.sampled_from(["value", "content"]))] = draw(
            st.sampled_from([text, text, [{"type": "output_text", "text": text}], [text], unique.value(draw)])
        )
        return made

    record: dict[str, Any] = {}
    for key in draw(st.lists(st.sampled_from(RECORD_KEYS), max_size=5, unique=True)):
        if key in ("conversations", "messages"):
            record[key] = [turn() for _ in range(draw(st.integers(0, 3)))]
        else:
            record[key] = unique.value(draw)
    return record


def leaves(value: Any) -> list[Any]:
    """What a record says, but for what says nothing and which kind of text a part is."""
    if isinstance(value, dict):
        typed = value.get("type") in ("text", "input_text", "output_text")
        return [leaf for key, part in value.items() if not (typed and key == "type") for leaf in leaves(part)]
    if isinstance(value, list):
        return [leaf for part in value for leaf in leaves(part)]
    return [] if value is None or value is True or value == "" else [value]


@settings(max_examples=examples(400))
@given(record=records())
@example(record={"messages": [{"from": "user", "role": "assistant", "content": "v1v", "value": "v2v"}]})
@example(record={"messages": [ANSWER], "conversations": [{"from": "gpt", "value": "v3v"}]})
def test_nothing_of_a_record_is_dropped_unsaid(record):
    before = json.dumps(record)
    found = read(record)
    assert json.dumps(record) == before, "the row is what is shown if it turns out to be bad"
    if isinstance(found, Bad):
        assert found.error
        assert found.excerpt == orjson.dumps(record).decode()[:200]
        return
    made, _ = RowMaker("s", Source(files="a"), "none").make("a.jsonl", found)
    text, license_, meta, turns = made[0].decode(), made[4], made[-2], orjson.loads(made[-1])
    kept = [text, license_ or "", json.dumps(orjson.loads(meta or b"{}")), json.dumps(turns)]
    roles = {"human", "user", "gpt", "assistant", "system", "tool"}
    for leaf in leaves(record):
        # A role becomes one of three, a mark of loss a decision; all else is found again as it was.
        assert leaf in roles or any(str(leaf) in place for place in kept), leaf
    assert any(turn["role"] == "assistant" and text[turn["start"] : turn["end"]].strip() for turn in turns)


CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {}}}


@pytest.mark.parametrize("as_text", [False, True])
def test_tools_and_their_calls(as_text):
    calls = [CALL]
    turns = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": json.dumps(calls) if as_text else calls},
        {"role": "tool", "content": [{"type": "text", "text": "3"}], "tool_call_id": "1"},
    ]
    record = read({"messages": turns, "tools": json.dumps([TOOL]) if as_text else [TOOL], "id": 7})
    assert record.turns == [
        Message("user", "Q", None, {}),
        Message("assistant", "", None, {"content": None, "tool_calls": calls}),
        Message("tool", "3", None, {"tool_call_id": "1"}),
    ]
    assert (record.tools, record.fields) == ([TOOL], {"id": 7})
    made, _ = RowMaker("s", Source(files="a"), "nfc").make("a.jsonl", record)
    turns = orjson.loads(made[-1])
    assert turns[0]["tools"] == [TOOL]
    assert turns[1]["fields"] == {"content": None, "tool_calls": calls}


def test_guanaco(tmp_path):
    text = "### Human: Hi\nthere### Assistant: Ho ### x### Human:  A?### Assistant: B.\n"
    (found, bad) = items(
        write(tmp_path / "a.jsonl", json.dumps({"text": text}) + '\n{"text": "a ### Human: b"}'), format="chat"
    )
    assert said(found) == [("user", "Hi\nthere"), ("assistant", "Ho ### x"), ("user", "A?"), ("assistant", "B.")]
    assert "no conversation in the fields text" in bad.error


def test_the_schemas_of_crystalchats_sets(tmp_path):
    """One row as published of each set that stage 3a took."""
    rows = {
        "guanaco": {"text": "### Human: Q### Assistant: A"},
        "SlimOrca": {
            "conversations": [
                {"from": "system", "value": "S", "weight": None},
                {"from": "human", "value": "Q", "weight": 0.0},
                {"from": "gpt", "value": "A", "weight": 1.0},
            ]
        },
        "ShareGPT_V4.3": {
            "id": "x_0",
            "conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}],
        },
        "Evol-ShareGPT": {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}], "idx": 1},
        "CodeAlpaca-20k": {"instruction": "Q", "input": "", "output": "A"},
        "Rosetta": {"instruction": "Q", "input": "", "output": "A"},
        "evol-codealpaca-v1": {"instruction": "Q", "output": "A"},
        "Evol-Instruct-Code-80k": {"instruction": "Q", "output": "A"},
    }
    found = items(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows.values()))), format="chat")
    for name, record in zip(rows, found, strict=True):
        assert said(record)[-2:] == [("user", "Q"), ("assistant", "A")], name
    assert [message.loss for message in found[1].turns] == [None, False, True]


def test_turns_are_normalised_before_they_are_joined(tmp_path):
    decomposed = "e\u0301"
    row = {
        "messages": [{"role": "user", "content": decomposed}, {"role": "assistant", "content": "\u0301" + decomposed}]
    }
    path = write(tmp_path / "a.jsonl", json.dumps(row))
    (record,) = items(path, format="chat")
    made, characters = RowMaker("s", listed(path, format="chat")[1], "nfc").make("a.jsonl", record)
    text = made[0].decode()
    assert text == "\u00e9\n\n\u0301\u00e9"
    assert characters == len(text)
    spans = orjson.loads(made[-1])
    assert [(s["role"], text[s["start"] : s["end"]]) for s in spans] == [
        ("user", "\u00e9"),
        ("assistant", "\u0301\u00e9"),
    ]


def test_real_instructions(shared):
    found = items(shared / "fixtures" / "instruct" / "code_alpaca_2k.json", format="chat")
    assert len(found) == 2017
    silent = "the conversation has no turn of the assistant that says anything"
    assert bads(found) == [(237, silent), (1859, silent)]


def test_chat_over_csv(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('instruction,output,n\n"Say, please","Yes\nand no",1\nAgain,,2\n')
    told, empty = items(path, format="chat")
    assert [message.content for message in told.turns] == ["Say, please", "Yes\nand no"]
    assert told.fields == {"n": "1"}
    assert "turn of the assistant" in empty.error
    (tmp_path / "b.tsv").write_text("prompt\tanswer\na\tb\n")
    assert [message.content for message in items(tmp_path / "b.tsv", format="chat")[0].turns] == ["a", "b"]
