"""Every key of the schema with all kinds of wrong values: told in plain words, by place and line, with a remedy."""

from __future__ import annotations

import datetime
import re
from typing import Any

import pytest
import yaml
from test_wrong_recipes import GOOD, changed

from headrace.errors import UserError
from headrace.recipe.load import load_recipe
from headrace.recipe.quality import AnyAnnotator
from headrace.recipe.schema import Recipe
from headrace.recipe.structure import container_of, kind_of, section_of, sections_of

# Pydantic's words, and Python's.
FOREIGN = re.compile(
    r"\bvalid\b|instance|[Ii]nput|pydantic|dictionary|pars(e|ing)|unable|[Ff]ield required|Value error|type=|Traceback|"
    r"NoneType|\bdict\b|\bstr\b|\btuple\b|\bint\b|should",
)
# What is quoted, and the names of keys.
OURS = re.compile(r"'[^']*'|`[^`]*`|(?<=keys are )[^.\n]*|(?<=keys here are )[^.\n]*|[\w-]+(\.[\w-]+)+|(?<=where: ).*")
WRONG: list[Any] = [
    None, True, 5, -1, 2.5, 10**30, 10**400, float("nan"), float("inf"),
    "", "x y", "\u202e", "yes", [], [1], ["a", "b", "c"],
    [None], [[]], {}, {"a": 1}, {1: 2}, {"": {}}, datetime.date(2026, 1, 1), b"bytes", [{"a": [1]}],
]  # fmt: skip


def keys(section: Any = Recipe, place: str = "") -> list[str]:
    """A dotted place for every key of the schema; the items of lists and mappings are stood for by one."""
    found = []
    for name, field in section.model_fields.items():
        here = f"{place}{field.alias or name}"
        found.append(here)
        inner, many = section_of(field.annotation), container_of(field.annotation)
        if inner is not None and here.count(".") < 8:
            item = {"list": ".0", "mapping": ".code", None: ""}[many]
            found += ([f"{here}{item}"] if item else []) + keys(inner, f"{here}{item}.")
    return found


def put(place: str, value: Any) -> dict[str, Any] | None:
    """The good recipe with a wrong value; None where the place cannot be reached in it."""
    try:
        return changed(place, value)
    except (AttributeError, IndexError, KeyError, TypeError):
        return None


def refusal(data: dict[str, Any]) -> UserError | None:
    """How a recipe is refused, and by nothing else than a UserError; None if it is not."""
    try:
        load_recipe(data)
    except UserError as error:
        return error
    return None


KEYS = keys()


def test_the_schema_is_walked():
    assert len(KEYS) > 120
    assert {"sources.code.files.0.glob", "stages.0.sources.code.fim.rate", "model.init.hidden_std"} <= set(KEYS)


@pytest.mark.parametrize("place", KEYS)
def test_wrong_values_are_told_in_plain_words(place):
    for value in WRONG:
        data = put(place, value)
        if data is None:
            continue
        error = refusal(data)
        if error is not None:
            said = str(error).replace(repr(value), "VALUE")
            assert not FOREIGN.search(OURS.sub("OURS", said)), said
            assert place.split(".")[0] in said
            assert error.found or (error.where and error.fix), said


@pytest.mark.parametrize("place", KEYS)
def test_a_wrong_value_is_told_by_its_line(tmp_path, place):
    data = put(place, {"zzz": [1]})
    if data is None:
        pytest.skip("not in the good recipe")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    lines = path.read_text().splitlines()
    with pytest.raises(UserError) as refused:
        load_recipe(path)
    told = [int(n) for n in re.findall(r"recipe\.yaml, line (\d+)", str(refused.value))]
    assert told, str(refused.value)
    here = next(i for i, line in enumerate(lines, 1) if "zzz" in line)
    # The key itself, or the section that holds it.
    assert min(here - n for n in told if n <= here) <= 4


GIVEN = {"positives": "good.jsonl", "folder": "model", "file": "model.bin", "label": "good", "model": "run"}
ANNOTATORS = [(section, key) for section in sections_of(AnyAnnotator) for key in section.model_fields]


@pytest.mark.parametrize(("section", "key"), ANNOTATORS, ids=[f"{kind_of(one)}-{key}" for one, key in ANNOTATORS])
def test_wrong_values_of_every_kind_of_annotator(tmp_path, section, key):
    needed = {name: GIVEN[name] for name, field in section.model_fields.items() if field.is_required()}
    for value in [*WRONG, {"zzz": [1]}]:
        data = changed("quality", {"annotators": {"one": {**needed, "kind": kind_of(section), key: value}}})
        error = refusal(data)
        if error is not None:
            said = str(error).replace(repr(value), "VALUE")
            assert not FOREIGN.search(re.sub(r"'[^']*'|`[^`]*`", "QUOTED", said)), said
            assert f"quality.annotators.one.{key}" in said
            assert error.found or (error.where and error.fix), said
    assert refusal(changed("quality", {"annotators": {"one": {**needed, "kind": kind_of(section)}}})) is None


@pytest.mark.parametrize("name", ["extends", "defaults", "sources", "stages"])
@pytest.mark.parametrize("value", WRONG, ids=[f"{i}" for i in range(len(WRONG))])
def test_wrong_values_of_what_is_handled_before_validation(name, value):
    error = refusal({**GOOD, name: value})
    assert error is None or error.where or error.found


@pytest.mark.parametrize("value", [v for v in WRONG if v is not None], ids=str)
def test_defaults_and_stages_of_wrong_types_are_told_too(value):
    for wrong in ({"defaults": {"train": value}}, {"stages": [value]}, {"sources": {"a": value}}):
        error = refusal({**GOOD, **wrong})
        assert error is None or error.where or error.found
