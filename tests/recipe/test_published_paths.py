"""Paths in a recipe that is published."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.recipe.load import load_recipe, load_sealed, published, sealed
from headrace.recipe.paths import anchor
from headrace.recipe.paths import published as publish

HOME = Path("/home/some one")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("data/*.jsonl", "data/*.jsonl"),
        ("${recipe}/a[1].txt", "a[1].txt"),
        ("/mnt/team/b.jsonl", "./b.jsonl"),
        ("../secret/c.jsonl", "./c.jsonl"),
        ("${DATA}/d.jsonl", "${DATA}/d.jsonl"),
        ("file:///mnt/team/e.jsonl", "./e.jsonl"),
        ("https://me:word@host.org/f.jsonl", "https://host.org/f.jsonl"),
        ("s3://bucket/g.parquet?X-Amz-Signature=abc&part=2", "s3://bucket/g.parquet?X-Amz-Signature=...&part=2"),
        ("hf://datasets/a/b/*.parquet", "hf://datasets/a/b/*.parquet"),
    ],
)
def test_paths_are_relative_to_the_recipe_or_a_name(written, said):
    data = anchor({"sources": {"s": {"files": written}}}, HOME)
    assert publish(data, HOME)["sources"]["s"]["files"] == said


@given(st.lists(st.text("ab*[?{ .", min_size=1, max_size=5), min_size=1, max_size=4), st.booleans())
def test_no_folder_above_is_told(parts, inside):
    folder = Path("/home/u[s]er/recipe")
    path = "/".join([*(("/home/u[s]er/recipe",) if inside else ("/elsewhere/private",)), *parts])
    for data in ({"tokenizer": {"file": path}}, {"measures": {"m": {"python": f"{path}:f", "with": {"x": [path]}}}}):
        told = str(publish(data, folder))
        assert "u[s]er" not in told
        assert "elsewhere" not in told


def test_a_run_keeps_the_folder_of_its_recipe(tmp_path):
    folder = tmp_path / "a b"
    folder.mkdir()
    (folder / "recipe.yaml").write_text("name: x\nsources: {s: {files: data/*.jsonl}}\n")
    recipe = load_recipe(folder / "recipe.yaml")
    (tmp_path / "recipe.yaml").write_bytes(sealed(recipe))
    again = load_sealed(tmp_path / "recipe.yaml")
    assert again == recipe
    assert published(again).sources["s"].files[0].glob == "data/*.jsonl"
