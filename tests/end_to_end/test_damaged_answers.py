"""`why` and `replay` on a damaged run: they say which file is damaged instead of showing what it holds."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from small_run import prose

import headrace as package
from commands import headrace
from headrace.recipe.load import load_recipe
from headrace.run_folder import artifact


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("answers")
    rng = random.Random(8)
    lines = [json.dumps({"text": prose(rng, 60)}) for _ in range(30)]
    (folder / "a.jsonl").write_text("\n".join(lines))
    recipe = {
        "name": "answers",
        "sources": {"a": {"files": str(folder / "a.jsonl")}},
        "tokenizer": {"train": {"vocab_size": 300}},
        "stages": [{"name": "one", "sequence_length": 64, "sources": {"a": {}}}],
    }
    package.run(load_recipe(recipe), folder / "run", workers=0, memory=400 << 20)
    return folder / "run"


def flip(path: Path, at: float) -> bytes:
    """Change a bit, and give back what was there."""
    whole = path.read_bytes()
    data = bytearray(whole)
    data[int(at * len(data))] ^= 1
    path.write_bytes(data)
    return whole


WHY, REPLAY = ("why", "a:a.jsonl:3"), ("replay", "--stage", "one", "--step", "1")


@pytest.mark.parametrize(
    ("kind", "stage", "at", "question"),
    [
        ("documents", None, 0.4, WHY),
        pytest.param("documents", None, 0.02, WHY, marks=pytest.mark.slow),
        ("verdicts", None, 0.4, WHY),
        pytest.param("documents", None, 0.4, REPLAY, marks=pytest.mark.slow),
        ("sequence", "one", 0.5, REPLAY),
    ],
)
def test_a_flipped_bit_is_told(run, kind, stage, at, question):
    shard = artifact(run, kind, stage).shard_path(0)
    command = (question[0], run, *question[1:])
    assert headrace(*command).stdout
    whole = flip(shard, at)
    try:
        told = headrace(*command, check=False)
        assert told.returncode == 2, told.stdout
        assert "digest differs" in told.stderr
        assert str(shard) in told.stderr
        assert "--verify" in told.stderr
        assert not told.stdout
    finally:
        shard.write_bytes(whole)
