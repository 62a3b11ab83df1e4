"""A run that trains an annotator and keeps by its scores: the same bytes for any workers, and after SIGKILL."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from small_run import killed_at_event, published

from commands import headrace
from quick import quick

RECIPE = """\
name: quality
sources:
  web: {files: "${recipe}/web.jsonl", fields: {language: language}}
  good: {files: "${recipe}/good.jsonl"}
deduplicate: {near: {ngram: 5}}
split: {validation: 0.0}
quality:
  annotators:
    fine:
      positives: {sources: good, files: ["${recipe}/more.jsonl"]}
      negatives: web
      curve: [0.5]
  keep: {share: 0.6, by: source}
tokenizer: {train: {vocab_size: 400}}
defaults: {sequence_length: 64}
stages:
  - name: all
    sources: {web: {}}
  - name: best
    sources: {web: {quality: {top: 0.2}, epochs: 2, fim: {rate: 0.5}}}
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder, rng = tmp_path_factory.mktemp("quality"), random.Random(3)
    words = {"good": ["mill", "race", "weir", "sluice"], "bad": ["click", "casino", "offer", "bonus"]}

    def text(kind: str) -> str:
        return " ".join(rng.choice(words[kind]) for _ in range(rng.randrange(5, 80))) + f" {rng.random()}"

    kinds = {
        "web": [rng.choice(["good", "bad", "bad"]) for _ in range(300)],
        "good": ["good"] * 60,
        "more": ["good"] * 40,
    }
    for name, drawn in kinds.items():
        rows = [{"text": text(kind), "language": rng.choice(["en", "de", None])} for kind in drawn]
        rows += rows[:5]  # copies, which are no negatives where they are of positives
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("finished") / "run"
    headrace("run", corpus / "recipe.yaml", "--out", run, "--workers", 1)
    return run


@pytest.mark.parametrize("workers", quick([0, 2, 3], 0, 3))
def test_the_bytes_are_the_same_for_any_workers(corpus, finished, tmp_path, workers):
    headrace("run", corpus / "recipe.yaml", "--out", tmp_path / "run", "--workers", workers, "--memory", "200MB")
    assert published(tmp_path / "run") == published(finished)


def test_a_run_killed_at_its_events_ends_with_the_same_bytes(corpus, finished, tmp_path):
    rng, run = random.Random(0), tmp_path / "run"
    names = [path.name for path in (finished / "artifacts").iterdir()]
    chosen = [n for n in sorted(names) if n.startswith(("annotator-", "quality-", "verdicts-", "sequence-best-"))]
    assert len(chosen) == 4
    for name in chosen:
        killed_at_event(corpus / "recipe.yaml", run, name, rng.choice([1, 2, 3, 5]))
    headrace("run", corpus / "recipe.yaml", "--out", run, "--workers", 0)
    assert published(run) == published(finished)
