"""Message trees become conversations; every row is a document, bad, or part of a conversation."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading_helpers import items, listed, write

from headrace.documents.readers import reader
from headrace.documents.readers.base import Bad, Part, Record, Skipped, Tally
from headrace.documents.readers.message_trees import MOST_MESSAGES

# name, parent, role, rank
TREE = [
    ("a", None, "prompter", None),
    ("b", "a", "assistant", 1),
    ("c", "b", "prompter", None),
    ("d", "a", "assistant", 0),
    ("e", "d", "prompter", 1),
    ("f", "e", "assistant", None),
    ("g", "d", "prompter", 0),
    ("h", "g", "assistant", 1),
    ("i", "g", "assistant", 0),
    ("j", "i", "prompter", 0),
]
BEST = ["a", "d", "g", "i"]
ALL = [["a", "b"], ["a", "d", "e", "f"], ["a", "d", "g", "h"], ["a", "d", "g", "i"]]


def flat(tree: Any = TREE, name: str = "t") -> list[dict[str, Any]]:
    return [
        {"message_id": m, "parent_id": p, "role": role, "text": m, "rank": rank, "message_tree_id": name, "lang": "en"}
        for m, p, role, rank in tree
    ]


def nested(tree: Any = TREE) -> dict[str, Any]:
    made: dict[str, dict[str, Any]] = {}
    for row in flat(tree):
        made[row["message_id"]] = {**row, "replies": []}
        if row["parent_id"] in made:
            made[row["parent_id"]]["replies"].append(made[row["message_id"]])
    return {"message_tree_id": "t", "tree_state": "ready", "prompt": made[tree[0][0]]}


def texts(found: list[Any]) -> list[list[str]]:
    return [[message.content for message in item.turns] for item in found if isinstance(item, Record)]


def lines(path: Any, rows: list[Any]) -> Any:
    return write(path, "\n".join(map(json.dumps, rows)))


def read(path: Any, paths: str = "best") -> tuple[list[Any], Tally]:
    file, source = listed(path, format="chat")
    tally = Tally()
    chat = reader("chat")
    found = [item for part in chat.split(file) for item in
             chat.read(file, part, source.model_copy(update={"paths": paths}), tally)]  # fmt: skip
    return found, tally


def accounted(found: list[Any], tally: Tally) -> None:
    rows = sum(item.rows if isinstance(item, Bad | Skipped) else isinstance(item, Record) for item in found)
    assert rows == tally.read


@pytest.mark.parametrize("layout", ["flat", "nested", "json", "parquet"])
def test_paths(tmp_path, layout):
    other = [("x", None, "prompter", None), ("y", "x", "assistant", None)]
    rows = [nested(), nested(other)] if layout == "nested" else flat() + flat(other, "u")
    if layout == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=4)
        path = tmp_path / "a.parquet"
    elif layout == "json":
        path = write(tmp_path / "a.json", json.dumps(rows))
    else:
        path = lines(tmp_path / "a.jsonl", rows)
    for paths, expected in (("best", [BEST, ["x", "y"]]), ("all", [*ALL, ["x", "y"]])):
        found, tally = read(path, paths)
        assert sorted(texts(found)) == sorted(expected)
        accounted(found, tally)
        first = next(item for item in found if isinstance(item, Record))
        assert first.fields["message_tree_id"] == "t"
        assert [message.role for message in first.turns] == ["user", "assistant"] * (len(first.turns) // 2)
        assert first.turns[0].fields["lang"] == "en"


def test_a_large_file_of_messages_is_read_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("headrace.documents.readers.jsonl.PART_BYTES", 100)
    path = lines(tmp_path / "a.jsonl", flat())
    file, _ = listed(path, format="chat")
    assert reader("chat").split(file) == [Part()]
    assert texts(read(path)[0]) == [BEST]


def test_conversations_and_trees_in_one_file(tmp_path):
    row = {"instruction": "Q", "output": "A"}
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, [row, *flat()[:5]])) + "\n\n" + "\n".join(
        map(json.dumps, [*flat()[5:], row, nested()])))  # fmt: skip
    found, tally = read(path)
    assert texts(found) == [["Q", "A"], BEST, ["Q", "A"], BEST]
    accounted(found, tally)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"role": "oracle"}, "the role 'oracle'"),
        ({"text": 5}, "no text"),
        ({"deleted": True}, "marked as deleted"),
        ({"message_id": "a"}, "a second message 'a'"),
        ({"parent_id": None}, "a second message without a parent"),
        ({"parent_id": "j"}, "'j', is not before it"),
    ],
)
def test_bad_messages_are_told_with_what_hangs_on_them(tmp_path, change, error):
    rows = flat()
    rows[3] |= change
    found, tally = read(lines(tmp_path / "a.jsonl", rows), "all")
    bad = [item for item in found if isinstance(item, Bad)]
    assert error in bad[0].error
    assert bad[0].row == 3
    assert texts(found) == [["a", "b"]]
    accounted(found, tally)


def test_trees_without_an_answer_or_too_large(tmp_path):
    found, tally = read(lines(tmp_path / "a.jsonl", flat(TREE[:1])))
    assert "no turn of the assistant" in found[0].error
    accounted(found, tally)
    row = nested(TREE[:1])
    assert "no turn of the assistant" in items(lines(tmp_path / "b.jsonl", [row]), format="chat")[0].error
    deep = [("0", None, "prompter", None), *((str(i), str(i - 1), "assistant", 0) for i in range(1, MOST_MESSAGES + 9))]
    found, tally = read(lines(tmp_path / "c.jsonl", flat(deep)))
    assert "more than can be read" in found[0].error
    accounted(found, tally)


@st.composite
def forests(draw: Any) -> list[Any]:
    rows = []
    for i in range(draw(st.integers(1, 12))):
        parent = draw(st.sampled_from([None, *(str(j) for j in range(i + 1))]))
        role = draw(st.sampled_from(["prompter", "assistant", "assistant", "oracle"]))
        rank = draw(st.sampled_from([None, 0, 1, "x", float("nan")]))
        tree = draw(st.sampled_from(["s", "t", "t", None]))
        rows.append({"message_id": str(i), "parent_id": parent, "role": role, "text": f"v{i}v", "rank": rank,
                     "message_tree_id": tree})  # fmt: skip
    return rows


@given(rows=forests(), paths=st.sampled_from(["best", "all"]))
def test_every_row_is_accounted_for(tmp_path_factory, rows, paths):
    found, tally = read(lines(tmp_path_factory.mktemp("t") / "a.jsonl", rows), paths)
    accounted(found, tally)
    parents = {f"v{row['message_id']}v": row["parent_id"] for row in rows}
    for item in found:
        if isinstance(item, Record):
            said = [message.content for message in item.turns]
            assert [parents[text] for text in said] == [None, *(text.strip("v") for text in said[:-1])]
            assert item.turns[-1].role == "assistant"
