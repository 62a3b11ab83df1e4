"""Annotators from recipe to scores: what they learn from, what they score, and that nothing else decides the bytes."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.documents.store import fetch
from headrace.errors import UserError
from headrace.pipeline import run
from headrace.recipe.load import load_recipe
from headrace.run_folder import artifact

GOOD = ["mill", "wheel", "race", "water", "sluice", "weir"]
BAD = ["buy", "cheap", "click", "offer", "casino", "bonus"]


def text(rng: random.Random, words: list[str], length: int = 60) -> str:
    return " ".join(rng.choice(words) for _ in range(length)) + f" {rng.random()}"


def corpus(folder: Path, documents: int = 400) -> None:
    """A corpus of good and bad texts, and a file of good ones."""
    rng = random.Random(7)
    lines = []
    for i in range(documents):
        words = GOOD if i % 4 == 0 else BAD
        lines.append({"text": text(rng, words), "language": "en" if i % 3 else "de", "good": i % 4 == 0})
    (folder / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "good.jsonl").write_text("".join(json.dumps({"text": text(rng, GOOD)}) + "\n" for _ in range(100)))


def recipe(folder: Path, **sections: Any) -> dict[str, Any]:
    return {
        "name": "q",
        "sources": {"web": {"files": str(folder / "corpus.jsonl"), "fields": {"language": "language"}}},
        "quality": {"annotators": {"good": {"positives": str(folder / "good.jsonl"), "curve": [0.5]}}},
        **sections,
    }


def built(folder: Path, data: dict[str, Any], out: str = "run", **options: Any) -> Path:
    run(load_recipe(data), folder / out, workers=0, memory=256 << 20, until="quality", **options)
    return folder / out


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quality")
    corpus(folder)
    return folder, built(folder, recipe(folder))


def test_what_resembles_the_positives_scores_higher(small):
    _, out = small
    scores = fetch(artifact(out, "quality", "good"), np.arange(400), ["score"]).column("score").to_numpy()
    meta = fetch(artifact(out, "documents"), np.arange(400), ["meta"]).column("meta").to_pylist()
    good = np.array([json.loads(one)["good"] for one in meta])
    assert scores.dtype == np.float32
    assert scores[good].min() > scores[~good].max()


def test_figures_are_of_held_out_examples(small):
    _, out = small
    made = artifact(out, "annotator", "good")
    told = json.loads(made.file_path("figures.json").read_bytes())
    assert made.manifest.counts["positives"] == 100
    held = told["held_out"]
    assert 0 < held["positives"] < 100
    assert len(told["curve"]) == 2
    assert told["curve"][-1]["examples"] + sum(held.values()) == sum(made.manifest.counts.values())


def test_copies_of_positives_are_no_negatives(tmp_path):
    corpus(tmp_path)
    every = (tmp_path / "corpus.jsonl").read_text().splitlines()
    good = [line for line in every if json.loads(line)["good"]]
    (tmp_path / "good.jsonl").write_text("\n".join(good))
    out = built(tmp_path, recipe(tmp_path))
    assert artifact(out, "annotator", "good").manifest.counts == {
        "positives": 100,
        "negatives": pytest.approx(100, abs=30),
    }
    told = json.loads(artifact(out, "annotator", "good").file_path("figures.json").read_bytes())
    assert told["auc"] == 1.0


def test_too_few_examples_are_told(tmp_path):
    corpus(tmp_path)
    (tmp_path / "good.jsonl").write_text(json.dumps({"text": "one"}))
    with pytest.raises(UserError, match="1 positives"):
        built(tmp_path, recipe(tmp_path))
