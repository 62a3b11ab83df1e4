"""Names of fields, with and without dots."""

from __future__ import annotations

import pytest

from headrace.documents.fields import MISSING, find, paths, take

RECORD = {"a": {"b": {"c": 1}, "b.c": 2, "n": None}, "a.b": 3, "x.y": {"z": 4}, "s": "text"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("s", "text"),
        ("a.b", 3),  # the name that is there comes first
        ("a.b.c", 2),
        ("x.y.z", 4),
        ("a.n", None),
        ("a.m", MISSING),
        ("s.t", MISSING),
        ("a.n.x", MISSING),
        ("", MISSING),
        (".", MISSING),
        ("a.", MISSING),
    ],
)
def test_find_and_take(name, value):
    record = dict(RECORD)
    assert find(record, name) == value
    assert take(record, name) == value
    if value is not MISSING:
        assert record != RECORD
    assert RECORD["a"] == {"b": {"c": 1}, "b.c": 2, "n": None}, "rows may share what is inside"


def test_what_becomes_empty_goes():
    record = {"a": {"b": {"c": 1}}, "k": 0}
    assert take(record, "a.b.c") == 1
    assert record == {"k": 0}


def test_paths():
    assert paths({"b": {"c": {"d": {"e": 1}}}, "a": 1}) == ["a", "b", "b.c", "b.c.d"]
