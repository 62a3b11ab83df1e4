"""``headrace memory``: what it says and refuses."""

from __future__ import annotations

import orjson
import pytest

RECIPE = """
name: long
sources:
  web: {files: absent/*.jsonl, license: CC0-1.0}
tokenizer: {train: {vocab_size: 128256}}
model: {preset: llama-3-8b}
stages:
  - {name: short, sequence_length: 4096, sources: {web: {}}}
  - {name: long, sequence_length: 131072, sources: {web: {}}, train: {batch: 8, recompute: full}}
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_it_tells_before_any_work_within_80_columns(recipe, command):
    done = command("memory", recipe, "--gpu", "h100", "--gpus", 8, "--host", "1.9TB")
    assert done.returncode == 0
    assert all(len(line) <= 80 for line in done.stdout.splitlines()), done.stdout
    assert "Stage long" in done.stdout
    assert "8 x H100" in done.stdout
    for term in ("weights", "gradients", "optimizer", "checkpoints", "attention", "mlp", "communication", "context"):
        assert f"  {term} " in done.stdout
    assert "backward of the last block" in done.stdout
    assert "The longest row that fits" in done.stdout


def test_as_json(recipe, command):
    done = command("memory", recipe, "--stage", "short", "--gpu", "h200", "--gpus", 8, "--nodes", 2, "--json")
    found = orjson.loads(done.stdout)
    assert found["stage"] == "short"
    assert found["machine"]["nodes"] == 2
    assert found["peak"]["total"] == sum(found["peak"]["terms"].values())
    assert found["peak"]["total"] == max(moment["total"] for moment in found["moments"])
    assert found["longest"] > 4096
    assert found["fits"]


def test_on_this_machine(recipe, command):
    done = command("memory", recipe, "--set", "model.preset=tiny", "--set", "model.vocab_size=null")
    assert done.returncode == 0, done.stderr
    assert "Stage long" in done.stdout


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--gpu", "h1000"], "h1000"),
        (["--gpus", "0"], "--gpus"),
        (["--nodes", "x"], "--nodes"),
        (["--host", "much"], "--host"),
        (["--stage", "absent"], "short, long"),
        (["--gpu", "h100", "--set", "stages.1.train.tensor_parallel=3"], "multiple of 3"),
        (["--gpu", "h100", "--gpus", "16", "--set", "stages.1.train.tensor_parallel=16"], "divides 8"),
        (["--set", "model=null"], "trains no model"),
    ],
)
def test_what_it_refuses(recipe, command, more, words):
    done = command("memory", recipe, *more)
    assert done.returncode == 2
    assert words in done.stderr, done.stderr
