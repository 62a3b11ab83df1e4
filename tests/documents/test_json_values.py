"""JSON values: exact numbers, side fields that are not quite JSON, and texts that must be."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading_helpers import bads, items, texts, write

from headrace.documents.readers.base import Repaired
from headrace.documents.readers.json_values import DEPTH, dump, parse
from headrace.documents.rows import RowMaker
from headrace.recipe.schema import Source

VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-(2**70), 2**70),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=5),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=4)),
    max_leaves=12,
)


def refuse(value: object) -> None:
    raise TypeError(value)


@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=4))
def test_any_value_comes_back_exactly(value):
    """Reference: Python's own parser, whose integers have no bound."""
    data = json.dumps(value).encode()
    assert parse(data) == value
    assert json.loads(dump(parse(data), refuse)) == value
    # Beside a member that is no JSON, the others are what they were.
    spoilt = b'{"\\u0000bad": NaN' + (b", " if value else b"") + data.lstrip(b"{")
    assert parse(spoilt) == {"\0bad": "NaN", **value}


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("NaN", "NaN"),
        ("Infinity", "Infinity"),
        ("-Infinity", "-Infinity"),
        ("nan", "nan"),
        ("1e999", "1e999"),
        ("-1e400", "-1e400"),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", 2**64),
        ("-9223372036854775809", -(2**63) - 1),
        ("1" * 400, int("1" * 400)),
        ("1" * 5000, "1" * 5000),
        ("1e19", 1e19),
        ('[NaN, {"b": 1e999, "c": 90000000000000000000}]', ["NaN", {"b": "1e999", "c": 90000000000000000000}]),
        ('"\\ud800 x"', "\ufffd x"),
        ('["\\udc00"]', ["\ufffd"]),
        ('"a\tb"', "a\tb"),
        ('{"deep": "\x01"}', {"deep": "\x01"}),
        ("undefined", "undefined"),
        ("'text'", "'text'"),
        ("01", "01"),
    ],
)  # fmt: skip
def test_a_side_field_never_costs_the_text(tmp_path, written, kept):
    rows = [f'{{"text": "one", "side": {written}}}', f'{{"side": {written}, "text": "two", "n": 1}}']
    found = items(write(tmp_path / "a.jsonl", "\n".join(rows)))
    assert texts(found) == ["one", "two"]
    assert found[1].fields == {"side": kept, "n": 1}
    maker = RowMaker("s", Source.model_validate({"files": "a"}), "nfc")
    (row, _) = maker.make("a", found[0])
    assert json.loads(row[8]) == {"side": kept}
    assert texts(items(write(tmp_path / "a.json", f"[{rows[0]}, {rows[1]}]"))) == ["one", "two"]


def test_bytes_that_are_no_utf8_in_a_side_field(tmp_path):
    found = items(write(tmp_path / "a.jsonl", b'{"text": "one", "\xff": "a\xffb", "license": "\xed\xa0\x80"}\n'))
    assert texts(found) == ["one"]
    assert found[0].fields["\ufffd"] == "a\ufffdb"
    row, _ = RowMaker("s", Source.model_validate({"files": "a"}), "nfc").make("a", found[0])
    assert row[4].startswith("\ufffd")


@pytest.mark.parametrize("levels", [200, 254, 255, 900, DEPTH, DEPTH + 1, 100_000])
def test_deep_side_fields(tmp_path, levels):
    deep = "[" * levels + "1" + "]" * levels
    (record,) = items(write(tmp_path / "a.jsonl", f'{{"text": "one", "side": {deep}, "other": NaN}}'))
    row, _ = RowMaker("s", Source.model_validate({"files": "a"}), "nfc").make("a", record)
    meta = orjson.loads(row[8])  # whatever is kept, an ordinary parser reads it
    assert meta["other"] == "NaN"
    assert meta["side"] == deep if levels > DEPTH else dump(meta["side"], refuse) == deep.encode()
    alone = items(write(tmp_path / "b.jsonl", f'{{"text": "one", "side": {deep}}}'))
    assert texts(alone) == ["one"]
    assert dump(alone[0].fields["side"], refuse) == dump(record.fields["side"], refuse)


@pytest.mark.parametrize("levels", [300, 900, 950, 1000, DEPTH, DEPTH + 1])
def test_deep_values_that_are_no_text(tmp_path, levels):
    deep = "[" * levels + "]" * levels
    held = '{"a": ' * levels + "1" + "}" * levels
    found = items(write(tmp_path / "a.jsonl", f'{deep}\n{{"text": {deep}}}\n{held}\n{{"text": "one"}}'))
    assert texts(found) == ["one"]
    assert [row for row, _ in bads(found)] == [0, 1, 2]


@pytest.mark.parametrize(
    "line",
    [
        '{"text": "one", "side": NaN',
        '{"text": "one", "side": NaN]',
        '{"text": "one" "side": NaN}',
        '{"text": "one", side: NaN}',
        '{"text": "one", "side": NaN} {"text": "two"}',
        '{"text": "one", "side": NaN,}',
        '["one", NaN]',
        "NaN",
    ],
)
def test_what_is_no_object_stays_bad(tmp_path, line):
    found = items(write(tmp_path / "a.jsonl", line))
    assert texts(found) == []
    assert len(bads(found)) == 1


@pytest.mark.parametrize("content", ['"\\ud800"', "NaN", '"a\tb"'])
def test_the_text_itself_must_be_json(tmp_path, content):
    found = items(write(tmp_path / "a.jsonl", f'{{"text": {content}, "side": NaN}}'))
    ((_, error),) = bads(found)
    assert error.startswith("the field 'text' is not JSON")
    told = error.removeprefix("the field 'text' is ")
    for place, row in (
        (
            "turn 2 (assistant)",
            f'"messages": [{{"role": "user", "content": "q"}}, {{"role": "gpt", "content": {content}}}]',
        ),
        ("part 1 of turn 1 (user)", f'"messages": [{{"role": "user", "content": [{content}]}}]'),
        ("the field 'input'", f'"instruction": "q", "input": {content}, "output": "a"'),
        ("the field 'system'", f'"instruction": "q", "output": "a", "system": {content}'),
    ):
        found = items(write(tmp_path / "b.jsonl", f"{{{row}}}"), format="chat")
        assert bads(found) == [(0, f"{place} is {told}")]


def test_mended_text_is_told_from_text():
    value = parse(b'{"a": "fine", "b": ["fine", "\\ud800"]}')
    assert [type(value["a"]), type(value["b"][0]), type(value["b"][1])] == [str, str, Repaired]
