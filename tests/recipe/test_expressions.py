"""The language of rules: what it takes, what it refuses and with which words."""

from __future__ import annotations

import pytest

from headrace.recipe.expressions import Mistake, columns, parse

TYPES = {"words": "int", "share": "float", "language": "str", "path": "str", "good": "bool"}


@pytest.mark.parametrize(
    "text",
    [
        "good",
        "not good and words > 3 or language == 'c'",
        "0.1 < share <= 1 != words",
        "language in ['c', 'c++'] and 'test' not in path",
        "words in (1, 2.5)",
        "path.lower().startswith('src/') or path.endswith('.py')",
        "matches(path, r'^(a|b)\\d+$')",
        "len(path) * 2 - words / 3 + -share > abs(words)",
        "share is None or share is not None",
        "True",
        " or ".join(["words == 1"] * 250),
    ],
)
def test_understood(text: str) -> None:
    node = parse(text, TYPES)
    assert node.type == "bool"
    assert set(columns(node)) <= set(TYPES)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("wrods > 3", "no measure or column 'wrods'"),
        ("text == 'a'", "cannot read texts"),
        ("words", "not true or false"),
        ("words > 'a'", "'words' is a number, but \"'a'\" is text"),
        ("language == None", "nothing is equal to None"),
        ("good < good", "has no order"),
        ("words and good", "`and` needs true or false"),
        ("language + 'a' == 'b'", "needs numbers"),
        ("language in []", "plain values of one type"),
        ("language in ['a', 1]", "plain values of one type"),
        ("words in ['a']", "the items of the list are not"),
        ("words is words", "only compares a measure or column with None"),
        ("matches(path, '(')", "not a regular expression"),
        ("matches(path, '(?=a)')", "not a regular expression"),
        ("matches(path, language)", "plain text in quotes"),
        ("path.upper() == 'A'", "not a function that rules support"),
        ("path.startswith()", "number of arguments"),
        ("len(path, path) > 1", "number of arguments"),
        ("__import__('os').system('true')", "not a function that rules support"),
        ("().__class__", "not supported in rules"),
        ("[x for x in path]", "not supported in rules"),
        ("lambda: good", "not supported in rules"),
        ("(words := 3) > 2", "not supported in rules"),
        ("good if good else good", "not supported in rules"),
        ("words ** 9 ** 9 > 1", "not supported in rules"),
        ("f'{path}' == 'a'", "not supported in rules"),
        ("words > 99999999999999999999", "that a column can hold"),
        ("words > 1j", "that a column can hold"),
        ("path == b'a'", "that a column can hold"),
        ("good = True", "not an expression"),
        ("", "not an expression"),
        ("(" * 300 + "good" + ")" * 300, "not an expression|cannot be parsed"),
        ("not " * 500 + "good", "nested too deeply"),
        ("-" * 3000 + "words > 1", "nested too deeply|cannot be parsed"),
        ("words > 1 " * 1000, "longer than"),
        ("words > \0", "not an expression|cannot be parsed"),
    ],
)
def test_refused(text: str, what: str) -> None:
    with pytest.raises(Mistake, match=what):
        parse(text, TYPES)
