"""Held-out loss and infilling while a stage trains, in the log, the model's artifact, and the report."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from headrace import pipeline
from headrace.errors import UserError
from headrace.evaluate.infilling import infilling_exact_match
from headrace.evaluate.language import Own
from headrace.evaluate.step import load_model
from headrace.flow.task import TaskContext
from headrace.recipe.load import load_recipe
from headrace.report.gather import gather
from headrace.report.summary import to_json
from headrace.run_folder import artifact, read_graph, stage_sequence
from headrace.tokens.load import open_engine
from headrace.train.metrics import EVALUATIONS, read

RECIPE = """\
name: tiny
sources: {code: {files: "code.jsonl"}}
split: {validation: 0.3}
tokenizer: {train: {vocab_size: 400}}
model: {layers: 1, width: 32, heads: 2, ffn: 48}
stages:
  - name: one
    sequence_length: 512
    sources: {code: {fim: {rate: 0.5}}}
    train: {batch: 2, steps: 5, precision: fp32, samples: {tokens: 0}, held_out: {rows: 4, every: 2, infilling: 2}}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    rng = random.Random(4)
    texts = [
        "\n".join(f"{rng.choice('abcdef')}{i} = {rng.randrange(999)} + x{i}" for i in range(25)) for _ in range(60)
    ]
    (folder / "code.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (folder / "recipe.yaml").write_text(RECIPE)
    # Up to the model alone: what it is measured on is made for it all the same.
    recipe = load_recipe(folder / "recipe.yaml")
    pipeline.run(recipe, folder / "run", workers=0, memory=1 << 28, until="model-one")
    pipeline.run(recipe, folder / "run", workers=0, memory=1 << 28)
    return folder / "run"


def test_it_is_measured_at_every_such_step_and_the_last(run):
    lines = read(artifact(run, "model", "one").file_path(EVALUATIONS))
    assert [line["step"] for line in lines] == [2, 4, 5]
    end = json.loads(artifact(run, "evaluation", "one").file_path("evaluation.json").read_text())["held_out"]
    assert lines[-1]["loss"] == pytest.approx(end["loss"], rel=1e-6)
    assert lines[-1]["sources"]["code"]["bits_per_byte"] == pytest.approx(
        end["sources"]["code"]["bits_per_byte"], rel=1e-6
    )
    [step] = [step for step in read_graph(run).all() if step.kind == "evaluation"]
    model = load_model(TaskContext(run, step), step.train)
    language = Own(model, open_engine(artifact(run, "tokenizer")))
    found = infilling_exact_match(language, stage_sequence(run, "heldout"), {"code"}, 2, step.seed)
    assert found is not None
    assert found["line"]["holes"] == 2
    assert lines[-1]["infilling"] == end["infilling"] == found


def test_without_held_out_rows_it_is_said(run, tmp_path):
    folder = run.parent
    recipe = load_recipe(folder / "recipe.yaml", ["split.validation=0"])
    with pytest.raises(UserError, match="every 2 steps, and there are no held-out rows"):
        pipeline.run(recipe, tmp_path / "run", workers=0, memory=1 << 28)


def test_the_report_draws_what_was_measured_and_logged(run):
    page = (run / "report" / "index.html").read_text()
    for title in ("Loss by source", "Learning rate", "Gradient norm", "Throughput", "Waiting for data"):
        assert f"<figcaption>{title}</figcaption>" in page
    assert "Infilling of held-out code" in page
    assert "of 2" in page
    [stage] = to_json(gather(run))["stages"].values()
    assert stage["training"]["infilling"]["line"]["holes"] == 2
