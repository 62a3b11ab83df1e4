"""A recipe at another scale: the amounts it states, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace.errors import UserError
from headrace.recipe.load import dump, load_recipe
from headrace.recipe.schema import Recipe

ROOT = Path(__file__).parents[2]


def recipe(scale: Any = None, **train: Any) -> Recipe:
    stage = {"name": "one", "tokens": "2M", "sources": {"a": {"weight": 1}}, "train": {"steps": 100, **train}}
    sections = {
        "name": "r",
        "sources": {"a": {"files": "x", "limit": "8MB", "expect": {"documents": 50}}, "b": {"files": "y"}},
        "tokenizer": {"train": {"vocab_size": 300}},
        "stages": [stage, {"name": "two", "sources": {"a": {"epochs": 2}}}],
    }
    return load_recipe(sections if scale is None else {**sections, "scale": scale})


def test_amounts_are_multiplied():
    made = recipe(0.1, schedule={"warmup": 5, "decay": 0.2})
    assert made.sources["a"].limit == 800_000
    assert made.sources["a"].expect.documents == 50, "what there is does not change"
    assert made.sources["b"].limit is None
    one, two = made.stages
    assert (one.tokens, one.train.steps) == (200_000, 10)
    assert (one.train.schedule.warmup, one.train.schedule.decay) == (1, 0.2)
    assert two.tokens is None
    assert two.sources["a"].epochs == 2


def test_pieces_and_defaults_are_multiplied():
    pieces = [{"start": 0, "end": 1, "steps": 86}, {"start": 1, "end": 0, "steps": 1000}]
    made = recipe("1e-2", schedule={"shape": "pieces", "pieces": pieces})
    assert [piece.steps for piece in made.stages[0].train.schedule.pieces] == [1, 10]
    sections = {**recipe().model_dump(exclude_unset=True), "defaults": {"train": {"steps": 40}}, "scale": 2}
    sections["stages"] = [{"name": "one", "sources": {"a": {}}}]
    assert load_recipe(sections).stages[0].train.steps == 80


def test_scale_is_applied_once():
    made = recipe(0.5)
    (again,) = [load_recipe(data) for data in [made.model_dump(mode="json", exclude_unset=True, by_alias=True)]]
    assert again == made
    assert "scale" not in dump(made)
    assert recipe(1) == recipe()


def test_one_override_changes_a_recipe_in_a_file(tmp_path):
    base, above = tmp_path / "base.yaml", tmp_path / "above.yaml"
    base.write_text("name: b\nscale: 0.5\nsources: {a: {files: x, limit: 10kB}}\n")
    above.write_text("extends: base.yaml\nname: c\nsources: {a: {limit: 30kB}}\n")
    assert load_recipe(above).sources["a"].limit == 15_000
    assert load_recipe(above, ["scale=2"]).sources["a"].limit == 60_000
    assert load_recipe(above, ["scale=2", "sources.a.limit=1kB"]).sources["a"].limit == 2_000


@pytest.mark.parametrize("scale", [0, -1, "much", True, float("inf"), float("nan"), [1], "nan"])
def test_a_scale_is_a_number(scale):
    with pytest.raises(UserError) as error:
        recipe(scale)
    assert error.value.where.startswith("scale")


@pytest.mark.parametrize("limit", ["much", None, [], {}, True, -3])
def test_what_is_no_amount_is_told_as_without_a_scale(limit):
    data = {"name": "r", "sources": {"a": {"files": "x", "limit": limit}}}

    def told(**more: Any) -> str:
        try:
            return repr(load_recipe({**data, **more}))
        except UserError as error:
            return f"{error.what} {error.where} {error.fix}"

    assert told(scale=0.5) == told()
