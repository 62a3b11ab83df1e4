"""Rules against plain Python with SQL's three truth values, and how they remove."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.recipe.expressions import Call, Column, Literal, Node, parse
from headrace.recipe.functions import Rule
from headrace.select.sidecar import ARROW
from headrace.select.verdicts.rules import apply_rules, evaluate, failures, findings

TYPES = {"words": "int", "share": "float", "language": "str", "good": "bool"}
VALUES = {
    "words": st.integers(-3, 5),
    "share": st.sampled_from([-1.0, 0.0, 0.5, 2.0, 1e300]),
    "language": st.sampled_from(["", "c", "C++", "é\nx", "python"]),
    "good": st.booleans(),
}
numbers = st.recursive(
    st.sampled_from(["words", "share", "0", "2", "0.5", "len(language)"]),
    lambda inner: (
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*/"), inner)
        | st.builds("abs({})".format, inner)
        | st.builds("(-{})".format, inner)
    ),
    max_leaves=4,
)
comparisons = st.one_of(
    st.builds("({} {} {})".format, numbers, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), numbers),
    st.sampled_from(
        [
            "good",
            "language.lower() == 'c++'",
            "language in ['c', 'python']",
            "words in [1, 2.5, 3]",
            "'+' in language",
            "language.startswith('c')",
            "language.endswith('n')",
            "matches(language, '^.x?$')",
            "share is None",
            "language != 'c'",
        ]
    ),
)
expressions = st.recursive(
    comparisons,
    lambda inner: (
        st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner)
        | st.builds("(not {})".format, inner)
    ),
    max_leaves=6,
)
rows = st.lists(st.fixed_dictionaries({k: st.none() | v for k, v in VALUES.items()}), min_size=1, max_size=8)


def reference(node: Node, row: dict[str, Any]) -> Any:
    """The value of an expression for one row, with None for what is unknown."""
    if isinstance(node, Column):
        return row[node.name]
    if isinstance(node, Literal):
        return node.value
    assert isinstance(node, Call)
    given = [reference(argument, row) for argument in node.arguments]
    if node.operation == "is_null":
        return given[0] is None
    if node.operation == "and":
        return False if False in given else None if None in given else True
    if node.operation == "or":
        return True if True in given else None if None in given else False
    if None in given:
        return None
    plain = {
        "not": lambda a: not a,
        "equal": lambda a, b: a == b,
        "not_equal": lambda a, b: a != b,
        "less": lambda a, b: a < b,
        "less_equal": lambda a, b: a <= b,
        "greater": lambda a, b: a > b,
        "greater_equal": lambda a, b: a >= b,
        "is_in": lambda a, b: a in b,
        "add": lambda a, b: float(a) + float(b),
        "subtract": lambda a, b: float(a) - float(b),
        "multiply": lambda a, b: float(a) * float(b),
        "divide": lambda a, b: float(a) / float(b) if b else None,
        "negate": lambda a: -float(a),
        "abs": lambda a: abs(float(a)),
        "len": len,
        "lower": str.lower,
        "startswith": str.startswith,
        "endswith": str.endswith,
        "contains": lambda a, b: b in a,
        "matches": lambda a, b: a[1:] in ("", "x") and a[:1] not in ("", "\n"),  # ^.x?$
    }
    value = plain[node.operation](*given)
    return None if isinstance(value, float) and value in (float("inf"), float("-inf")) else value


def table_of(data: list[dict[str, Any]]) -> dict[str, pa.Array]:
    return {name: pa.array([row[name] for row in data], ARROW[kind]) for name, kind in TYPES.items()}


@given(expressions, rows)
def test_as_in_plain_python_with_unknowns(text: str, data: list[dict[str, Any]]) -> None:
    node = parse(text, TYPES)
    got = evaluate(node, table_of(data))
    values = [got.as_py()] * len(data) if isinstance(got, pa.Scalar) else got.to_pylist()
    assert values == [reference(node, row) for row in data]


def test_the_first_rule_that_does_not_keep_is_the_reason() -> None:
    data = [dict.fromkeys(TYPES), {"words": 1, "share": 0.5, "language": "c", "good": True}]
    data += [{**data[1], "words": 0}, {**data[1], "language": None}]
    rules = [Rule(keep=keep, name=name) for name, keep in (("a", "words > 0"), ("b", "language == 'c' or share < 0"))]
    parsed = [(rule, parse(rule.keep, TYPES)) for rule in rules]
    judged = apply_rules(parsed, table_of(data), 4)
    assert judged.reason.to_pylist() == ["filter:a", None, "filter:a", "filter:b"]
    assert json.loads(judged.evidence[3].as_py()) == {"language": None, "share": 0.5, "limit": rules[1].keep}
    told = list(findings(parsed, {name: column.slice(2, 1) for name, column in table_of(data).items()}))
    assert [(f.reason, f.removes) for f in told] == [("filter:a", True), ("filter:b", False)]


@pytest.mark.parametrize(("keep", "kept"), [("True", 2), ("1 > 2", 0)])
def test_rules_without_columns(keep: str, kept: int) -> None:
    judged = apply_rules([(Rule(keep=keep, name="r"), parse(keep, {}))], {}, 2)
    assert judged.reason.null_count == kept


def test_failures_name_the_first_measure() -> None:
    errors = [pa.array([None, "x", None], pa.string()), pa.array([None, "y", "z"], pa.string())]
    judged = failures(["m", "n"], errors, 3)
    assert judged.reason.to_pylist() == [None, "failed:m", "failed:n"]
    assert [e and json.loads(e) for e in judged.evidence.to_pylist()] == [None, {"error": "x"}, {"error": "z"}]
