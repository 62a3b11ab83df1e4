"""The CrystalCoder example against the published parameter files."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from headrace.recipe.load import load_recipe

RECIPE = Path(__file__).parents[2] / "recipes" / "crystalcoder.yaml"
NAMES = {"SlimPajama/ArXiv": "arxiv", "SlimPajama/Book": "book", "SlimPajama/C4": "c4",
         "SlimPajama/CommonCrawl": "commoncrawl", "SlimPajama/Github": "github",
         "SlimPajama/StackExchange": "stackexchange", "SlimPajama/Wikipedia": "wikipedia", "StarCoder": "starcoder",
         "/css": "css", "/javascript": "javascript", "/html": "html", "/python": "python"}  # fmt: skip


@pytest.mark.parametrize(("phase", "stage"), [(1, "stage1"), (2, "stage2"), (3, "stage3")])
def test_weights_tokens_and_schedule_are_the_published_ones(shared, phase, stage):
    published = yaml.safe_load((shared / "fixtures" / "crystalcoder" / f"params_phase{phase}.yaml").read_text())
    ours = load_recipe(RECIPE).stage(stage)
    batch, length = published["train_input"]["batch_size"], published["model"]["max_position_embeddings"]
    assert (ours.train.batch, ours.sequence_length) == (batch, length)
    assert ours.tokens == published["runconfig"]["max_steps"] * batch * length
    assert ours.train.checkpoint_every == published["runconfig"]["checkpoint_steps"]
    weights = {}
    for part in published["train_input"]["mixture"]:
        name = next(name for key, name in NAMES.items() if key in part["data_dir"])
        weights[name] = part["weight"]
        if "data_subset" in part:
            assert ours.sources[name].slice == (0, 0.1)
    assert {name: take.weight for name, take in ours.sources.items()} == weights
    optimizer, theirs = ours.train.optimizer, published["optimizer"]
    assert optimizer.betas == (theirs["beta1"], theirs["beta2"])
    assert (optimizer.eps, optimizer.weight_decay) == (theirs["eps"], theirs["weight_decay_rate"])
    assert optimizer.clip == theirs["max_gradient_norm"]
    pieces = [(p.start, p.end, p.steps) for p in ours.train.schedule.pieces]
    assert pieces == [
        (p["initial_learning_rate"], p["end_learning_rate"], p.get("steps", p.get("decay_steps")))
        for p in theirs["learning_rate"]
    ]
