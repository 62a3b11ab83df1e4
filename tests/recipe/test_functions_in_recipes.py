"""Functions and rules in a recipe: what is refused when it is read, what is written out and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import headrace
from headrace.errors import UserError
from headrace.recipe.load import dump, load_recipe, with_filters

CODE = "def f(d) -> int: return 1\ndef untyped(d): return 1\nclass K:\n  def __call__(self, d) -> bool: return True\n"
SOURCES = {"s": {"files": "f.jsonl"}, "talk": {"files": "t.json", "format": "chat"}}


@pytest.fixture
def m(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.py").write_text(CODE)
    return tmp_path / "m.py"


def recipe(**sections: Any) -> headrace.Recipe:
    return headrace.Recipe(name="r", sources=SOURCES, **sections)


F = {"python": "m.py:f"}
WRONG = {
    "measures.m: 1": ({"measures": {"m": {"python": "m.py:untyped"}}}, "does not declare the type"),
    "measures.m: 2": ({"measures": {"m": {"python": "m.py:g"}}}, "no function or class 'g'"),
    "measures.m: 3": ({"measures": {"m": {"python": "m.txt:f"}}}, "not FILE:FUNCTION"),
    "measures.m: 4": ({"measures": {"m": {**F, "package": "p"}}}, "code in two places"),
    "measures.m: 5": ({"measures": {"m": {**F, "with": {"a b": 1}}}}, "not a parameter name"),
    "measures.m: 6": ({"measures": {"m": {**F, "with": {"a": {1, 2}}}}}, "not a plain value"),
    "measures.m: 7": ({"measures": {"m": {"code": "def f(d) -> int: ...", "python": "g"}}}, "no function or class 'g'"),
    "measures.words: 8": ({"measures": {"words": F}}, "is already taken"),
    "measures.m-1: 9": ({"measures": {"m-1": F}}, "cannot use the name"),
    "filters.rules.0.keep": ({"filters": {"rules": [{"keep": "mm > 1", "name": "a"}]}}, "no measure or column 'mm'"),
    "filters.rules.0.name": ({"filters": {"rules": [{"keep": "True", "name": "max_line"}]}}, "is taken"),
    "filters.rules.1.name": ({"filters": {"rules": [{"keep": "True", "name": "a"}] * 2}}, "is taken"),
    "documents.map.0.sources.0: 1": ({"documents": {"map": [{**F, "sources": ["x"]}]}}, "no source 'x'"),
    "documents.map.0.sources.0: 2": ({"documents": {"map": [{**F, "sources": "talk"}]}}, "cannot change"),
}


@pytest.mark.parametrize("place", WRONG)
def test_refused(m: Path, place: str) -> None:
    sections, what = WRONG[place]
    with pytest.raises(UserError, match=what) as told:
        recipe(**sections)
    assert told.value.where.startswith(place.partition(":")[0])


def test_a_recipe_that_was_written_out_needs_the_code_no_more(m: Path) -> None:
    made = recipe(
        measures={
            "m": {**F, "with": {"a": [1]}},
            "k": {"python": "m.py:K"},
            "t": {"code": "def t(d) -> str: ...", "python": "t"},
        },
        documents={"map": [{"python": "m.py:untyped"}]},
        filters={"rules": [{"keep": "m > 1 and k", "name": "a"}]},
    )
    assert {name: measure.type for name, measure in made.measures.items()} == {"m": "int", "k": "bool", "t": "str"}
    (m.parent / "out.yaml").write_text(dump(made))
    m.unlink()
    again = load_recipe(m.parent / "out.yaml")
    assert again == made
    assert dump(again) == dump(made)


def test_the_identity_follows_code_and_parameters_not_the_place(m: Path) -> None:
    def identity(**changes: Any) -> dict[str, Any]:
        return recipe(measures={"m": {**F, **changes}}).measures["m"].identity()

    first = identity()
    assert identity(on_error="stop") == first
    assert identity(**{"with": {"a": 1}}) != first
    assert identity(version=2) != first
    (m.parent / "elsewhere").mkdir()
    (m.parent / "elsewhere" / "m.py").write_text(CODE)
    assert identity(python="elsewhere/m.py:f") == first
    m.write_text(CODE + "# changed")
    assert identity() != first


def test_filters_as_functions(m: Path) -> None:
    def keep(document: headrace.Document) -> bool:
        return True

    with pytest.raises(UserError, match="not defined at the top level"):
        with_filters(recipe(), [keep])
    made = with_filters(recipe(measures={"test_refused": F}), [])
    with pytest.raises(UserError, match="There is already a measure 'test_refused'"):
        with_filters(made, [test_refused])
    made = with_filters(recipe(), [test_refused])
    assert (made.measures["test_refused"].type, made.filters.rules[0].keep) == ("bool", "test_refused")
