"""YAML that would take for ever, more memory than there is, or more depth than Python has, is refused at once."""

from __future__ import annotations

import contextlib

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import UserError
from headrace.recipe.bounded_yaml import DEEPEST, MOST_BYTES, MOST_NODES, lines, parse
from headrace.recipe.load import load_recipe
from quick import quick


def bomb(levels: int, width: int, item: str) -> str:
    lines = ["a0: &a0 {x: y}"]
    lines += [f"a{i}: &a{i} {item.format(', '.join([f'*a{i - 1}'] * width))}" for i in range(1, levels)]
    return "\n".join(lines)


REFUSED = {
    "aliases": bomb(30, 9, "[{}]"),
    "merges": bomb(30, 9, "{{{{<<: [{}]}}}}".replace("{{{{", "{{").replace("}}}}", "}}")),
    "mappings": "\n".join(["a0: &a0 x", *(f"a{i}: &a{i} {{l: *a{i - 1}, r: *a{i - 1}}}" for i in range(1, 40))]),
    "chain": "\n".join(["a0: &a0 x", *(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 5000))]),
    "flow": "a: " + "[" * 5000 + "]" * 5000,
    "maps": "a: " + "{b: " * 3000 + "1" + "}" * 3000,
    "block": "\n".join(f"{' ' * i}a:" for i in range(1500)),
    "dashes": "a:\n  " + "- " * 3000 + "x",
    "unclosed": "a: " + "[" * 100_000,
    "itself": "a: &a [*a]",
    "itself below": "a: &a {b: {c: *a}}",
    "wide": "a: [" + "x," * (MOST_NODES + 1) + "]",
    "digits": "seed: " + "9" * 5000,
    "date": "seed: 2001-99-99",
    "sexagesimal": "seed: 0x",
    "key": "? [a, b]\n: c",
    "python": "a: !!python/object/apply:os.system [ls]",
    "several": "a: 1\n---\nb: 2",
    "character": "a: \x00",
    "tab": "a:\n\t- b",
}


REFUSED_IN_FILES = [name for name in REFUSED if name != "sexagesimal"]


@pytest.mark.parametrize("name", quick(REFUSED_IN_FILES, *{*REFUSED_IN_FILES} - {"wide"}))
def test_a_recipe_beyond_the_bounds_is_refused(tmp_path, name):
    path = tmp_path / "recipe.yaml"
    path.write_text(REFUSED[name])
    with pytest.raises(UserError) as error:
        load_recipe(path)
    assert "recipe.yaml" in error.value.where
    assert "mistakes" not in error.value.what


@pytest.mark.parametrize("name", ["flow", "maps", "itself", pytest.param("wide", marks=pytest.mark.slow), "digits"])
def test_an_override_beyond_the_bounds_is_refused(name):
    with pytest.raises(UserError, match="--set seed=" if name == "digits" else "--set a="):
        load_recipe({"name": "x"}, [REFUSED[name].replace(": ", "=", 1)])


def test_a_key_that_nests_too_deep_is_refused():
    with pytest.raises(UserError):
        load_recipe({"name": "x", "sources": {"a": {"files": "a"}}}, [".".join("a" * 5000) + "=1"])


def test_what_is_no_recipe_but_data_is_not_read_to_its_end(tmp_path):
    (tmp_path / "data.jsonl").write_bytes(b'{"text": "x"}\n' * (MOST_BYTES // 10))
    with pytest.raises(UserError, match="data files"):
        load_recipe(tmp_path / "data.jsonl")


def test_anchors_and_merges_within_the_bounds_are_read():
    node, value = parse("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]\n", "x")
    assert node is not None
    assert value == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": [{"x": 1}, {"x": 1}]}
    deep = "[" * (DEEPEST - 2) + "]" * (DEEPEST - 2)
    assert parse(deep, "x")[1] is not None
    assert parse("", "x") == (None, None)


def test_a_key_may_replace_a_merged_one_but_not_itself():
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: [*b, *a], y: 4}\nd: {x: 5, <<: *a}\n"
    node, value = parse(text, "x")
    assert value == {
        "a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}, "c": {"x": 3, "y": 4}, "d": {"x": 5, "y": 2}
    }  # fmt: skip
    assert value == yaml.safe_load(text)
    assert dict(lines(node, (), "x"))["b", "x"] == 2
    for twice in ("{<<: *a, x: 1, x: 2}", "{x: 1, x: 2}"):
        node, _ = parse(f"a: &a {{y: 2}}\nb: {twice}\n", "x")
        with pytest.raises(UserError, match="appears twice"):
            list(lines(node, (), "x"))


@given(st.text(alphabet="ab:-[]{},&*<>|!?#%@`'\"\\ \n\t0.~", max_size=60))
def test_any_text_is_a_value_or_refused(text):
    with contextlib.suppress(UserError):  # and by nothing else
        parse(text, "x")
