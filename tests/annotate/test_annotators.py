"""Annotators that are models of torch, from recipe to scores: what decides the bytes, and what nothing may decide."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import bert

from headrace.documents.store import fetch
from headrace.errors import UserError
from headrace.flow.task import TaskContext
from headrace.pipeline import run
from headrace.recipe.load import load_recipe
from headrace.run_folder import artifact

GOOD = ["mill", "wheel", "race", "water", "sluice", "weir"]
BAD = ["buy", "cheap", "click", "offer", "casino", "bonus"]
ROWS = 90


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A corpus of good and bad texts of all lengths, a file of good ones, and models."""
    folder, draw = tmp_path_factory.mktemp("annotators"), random.Random(7)

    def text(words: list[str]) -> str:
        return " ".join(draw.choice(words) for _ in range(int(2 ** draw.uniform(1, 8)))) + f" {draw.random()}"

    every = [{"text": text(GOOD if k % 3 == 0 else BAD), "good": k % 3 == 0} for k in range(ROWS)]
    every[4]["text"] = every[7]["text"] = " \n\n "
    for k, part in enumerate((every[:30], every[30:60], every[60:])):
        (folder / f"corpus-{k}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in part))
    (folder / "good.jsonl").write_text("".join(json.dumps({"text": text(GOOD)}) + "\n" for _ in range(60)))
    bert(folder / "bert")
    bert(folder / "classifier", classifier=True, id2label={0: "bad", 1: "good"})
    return folder


def section(at: Path, kind: str, **more: Any) -> dict[str, Any]:
    examples = {"positives": str(at / "good.jsonl"), "curve": [0.5], "held_out": 0.3}
    return {
        "frozen": {"kind": "encoder", "folder": str(at / "bert"), **examples},
        "fine-tuned": {"kind": "encoder", "folder": str(at / "bert"), "fine_tune": {"passes": 1}, **examples},
        "pooled": {"kind": "pooled", "width": 8, "window": 32, "passes": 30, "rate": 0.01, **examples},
        "classifier": {
            "kind": "classifier",
            "folder": str(at / "classifier"),
            "label": "good",
            "windows": "bottom",
        },
    }[kind] | more


def built(folder: Path, out: Path, annotator: dict[str, Any], workers: int = 0) -> Path:
    recipe = {
        "name": "q",
        "sources": {"web": {"files": str(folder / "corpus-*.jsonl")}},
        "quality": {"annotators": {"good": annotator}},
    }
    run(load_recipe(recipe), out, workers=workers, memory=2 << 30, until="quality")
    return out


def digests(out: Path) -> list[str]:
    """What was made, by content."""
    made = [artifact(out, kind, "good") for kind in ("annotator", "quality") if any(of(out, kind))]
    return [one.manifest.identity for one in made] + [str(entry["digest"]) for one in made for entry in one.entries]


def of(out: Path, kind: str) -> list[Path]:
    return list((out / "artifacts").glob(f"{kind}-good-*"))


def scores(out: Path, told: str | None = "good") -> tuple[np.ndarray, np.ndarray]:
    """Score of each document, and whether it is good."""
    rows = np.arange(artifact(out, "documents").rows)
    meta = fetch(artifact(out, "documents"), rows, ["meta"]).column("meta").to_pylist()
    found = fetch(artifact(out, "quality", "good"), rows, ["score"]).column("score")
    return found.to_numpy(zero_copy_only=False), np.array([told and json.loads(one)[told] for one in meta])


@pytest.mark.parametrize(
    ("kind", "workers", "least"),
    [("frozen", [2], 0.8), ("fine-tuned", [], 0.8), ("pooled", [], 0.95), ("classifier", [], None)],
)
def test_nothing_but_the_content_decides_the_bytes(folder, tmp_path, monkeypatch, kind, workers, least):
    first = built(folder, tmp_path / "run", section(folder, kind))
    others = [built(folder, tmp_path / f"run{n}", section(folder, kind), n) for n in workers]
    monkeypatch.setattr(TaskContext, "careful", True)  # as after the death of a worker
    others.append(built(folder, tmp_path / "careful", section(folder, kind)))
    assert all(digests(other) == digests(first) for other in others)
    found, good = scores(first)
    assert np.isnan(found).sum() == 2
    if least is not None:  # a third of the negatives are good in truth, so that their figures cannot tell
        known = ~np.isnan(found)
        assert (found[known & good][:, None] > found[known & ~good]).mean() > least
        told = json.loads(artifact(first, "annotator", "good").file_path("figures.json").read_bytes())
        assert told["auc"] > 0.65


def test_what_changes_scores_changes_what_they_are(folder, tmp_path):
    plain = digests(built(folder, tmp_path / "a", section(folder, "frozen")))
    bert(folder / "other", seed=1)
    for k, more in enumerate(
        ({"pool": "first"}, {"window": 16}, {"windows": "top"}, {"folder": str(folder / "other")})
    ):
        assert digests(built(folder, tmp_path / str(k), section(folder, "frozen", **more))) != plain
    (folder / "moved").mkdir()
    for file in (folder / "bert").iterdir():
        os.link(file, folder / "moved" / file.name)
    assert digests(built(folder, tmp_path / "b", section(folder, "frozen", folder=str(folder / "moved")))) == plain


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"folder": "nowhere"}, "There is no such file or folder"),
        ({"folder": "."}, "holds no model"),
        ({"window": 1000}, "64 tokens at a time"),
    ],
)
def test_a_section_that_cannot_be_is_told(folder, tmp_path, more, told):
    (tmp_path / "empty").mkdir()
    if "folder" in more:
        more = {"folder": str(tmp_path / "empty" / more["folder"])}
    with pytest.raises(UserError) as error:
        built(folder, tmp_path / "run", section(folder, "frozen", **more))
    assert told in str(error.value)


@pytest.mark.parametrize("kind", ["frozen", "pooled"])
def test_examples_without_text_teach_nothing(folder, tmp_path, kind):
    (tmp_path / "blank.jsonl").write_text("".join(json.dumps({"text": " " * k}) + "\n" for k in range(1, 40)))
    (tmp_path / "corpus-0.jsonl").write_text("".join(json.dumps({"text": "\t" * k}) + "\n" for k in range(1, 40)))
    blank = section(folder, kind, positives=str(tmp_path / "blank.jsonl"))
    if kind == "frozen":
        with pytest.raises(UserError, match="No example has any text"):
            built(tmp_path, tmp_path / "run", blank)
    else:
        assert np.isnan(scores(built(tmp_path, tmp_path / "run", blank), None)[0]).all()
