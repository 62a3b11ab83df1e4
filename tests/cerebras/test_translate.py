"""The published files as recipes: the model, and the rate of every step."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from published import published, tiny

from headrace.cerebras.read import read
from headrace.cerebras.translate import Data, train_recipe
from headrace.model.presets import CRYSTALCODER_7B, resolve
from headrace.train.schedules import learning_rate

STEPS = {1: 79_721, 2: 214_387, 3: 27_728}
SIZES = {
    "hidden_size",
    "num_hidden_layers",
    "num_heads",
    "filter_size",
    "rotary_dim",
    "vocab_size",
    "max_position_embeddings",
}


@pytest.fixture(params=[1, 2, 3])
def phase(request):
    return request.param


def recipe(shared, phase):
    params = read(shared / f"fixtures/crystalcoder/params_phase{phase}.yaml", {})
    return params, train_recipe(params, Data(2048, STEPS[phase] * 2112))


def test_published_files_are_taken_as_they_are(shared, phase):
    params, made = recipe(shared, phase)
    theirs = published(shared, phase)
    [stage] = made.stages
    config = resolve(made.model, 32032)
    assert config.model_copy(update={"init": CRYSTALCODER_7B.init}) == CRYSTALCODER_7B
    assert config.init.model_copy(update={"seed": None}) == CRYSTALCODER_7B.init
    train = stage.train
    assert (train.batch, train.steps, stage.sequence_length, stage.epochs) == (2112, STEPS[phase], 2048, 1)
    assert (train.loss.per, train.loss.weight) == ("row", 1 / 2048)
    assert (train.optimizer.betas, train.optimizer.eps, train.optimizer.clip) == ((0.9, 0.95), 1e-9, 1.0)
    assert (train.optimizer.weight_decay, train.precision) == (0.1, "bf16")
    assert train.checkpoint_every == theirs["runconfig"]["checkpoint_steps"]
    assert made.seed == theirs["train_input"]["shuffle_seed"]
    assert [(list(r.path), r.weight, r.slice) for r in stage.sequence] == [
        ([e["data_dir"]], e["weight"], ((0.0, 0.1),) if "data_subset" in e else ((0.0, 1.0),))
        for e in theirs["train_input"]["mixture"]
    ]
    # Each key of the file is honoured, or there is a line about it.
    keys = {key for name, section in theirs.items() for key in section}
    said = " ".join(params.notes)
    assert sum(f".{key} " in said for key in keys) > 15


def test_rates_are_the_published_ones_at_every_step(shared, phase):
    _, made = recipe(shared, phase)
    train = made.stages[0].train
    step = np.arange(STEPS[phase], dtype=np.float64)
    warm, decay = published(shared, phase)["optimizer"]["learning_rate"]
    first, second = warm["steps"], decay["decay_steps"]
    peak, end = warm["end_learning_rate"], decay["end_learning_rate"]
    # LinearLR and SequentialLR of the Model Zoo.
    expected = np.where(step < first, peak * step / first, peak + (end - peak) * np.minimum(1, (step - first) / second))
    found = [learning_rate(train.schedule, train.optimizer.learning_rate, i, STEPS[phase]) for i in range(STEPS[phase])]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-18)
    assert made.model.mup.hidden_learning_rate == 0.0625


def test_the_tiny_files_differ_in_sizes_and_places_alone(shared, phase, tmp_path):
    theirs, ours = published(shared, phase), tiny(shared, phase, tmp_path)
    assert ours["optimizer"] == theirs["optimizer"]
    assert {k: v for k, v in ours["model"].items() if k not in SIZES} == {
        k: v for k, v in theirs["model"].items() if k not in SIZES
    }


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        (0.5, [0.5] * 12),
        ([{"scheduler": "Constant", "learning_rate": 2}], [2] * 12),
        (
            {"scheduler": "PiecewiseConstant", "values": [3, 2, 1], "boundaries": [2, 5]},
            [3, 3, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1],
        ),
        (
            [
                {"scheduler": "Constant", "learning_rate": 1, "steps": 2},
                {"scheduler": "Exponential", "initial_learning_rate": 8, "decay_rate": 0.5, "decay_steps": 2},
            ],
            [1, 1, *(8 * 0.5 ** (np.arange(10) / 2))],
        ),
        (
            [
                {"scheduler": "polynomial", "initial_learning_rate": 0, "end_learning_rate": 4, "total_iters": 2},
                {"scheduler": "piecewiseconstant", "values": [4, 3, 2], "boundaries": [3, 9], "decay_steps": 5},
                {"scheduler": "Constant", "learning_rate": 1},
            ],
            [0, 2, 4, 4, 4, 3, 3, 1, 1, 1, 1, 1],
        ),
        (
            [{"scheduler": "CosineDecay", "initial_learning_rate": 4, "end_learning_rate": 1, "decay_steps": 6}],
            [*(2.5 + 1.5 * np.cos(np.pi * np.arange(6) / 6)), *[1] * 6],
        ),
    ],
)
def test_schedulers_alone_and_in_lists(shared, tmp_path, rates, expected):
    params = tiny(shared, 1, tmp_path)
    params["optimizer"]["learning_rate"] = rates
    params["runconfig"]["max_steps"] = 12
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    train = train_recipe(read(tmp_path / "params.yaml", {}), Data(16, 100)).stages[0].train
    found = [learning_rate(train.schedule, train.optimizer.learning_rate, i, 12) for i in range(12)]
    np.testing.assert_allclose(found, np.asarray(expected, dtype=float), rtol=1e-9)


def test_evaluation_is_after_each_epoch_unless_the_file_says_otherwise(shared, tmp_path):
    def often(rows, **run):
        params = tiny(shared, 1, tmp_path)
        params["runconfig"] |= run
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
        made = train_recipe(read(tmp_path / "params.yaml", {}), Data(16, rows))
        assert len(made.held_out) == (run["mode"] == "train_and_eval")
        return made.stages[0].train.held_out.every, made.stages[0].train.held_out.rows

    assert often(43, mode="train_and_eval") == (10, 8)
    assert often(3, mode="train_and_eval") == (1, 8)
    assert often(43, mode="train_and_eval", eval_frequency=3, eval_steps=None) == (3, None)
    assert often(43, mode="train") == (None, 64)


def test_steps_beyond_an_epoch_read_it_again(shared, tmp_path):
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tiny(shared, 1, tmp_path)))

    def stage(rows, done=0, **run):
        params = read(tmp_path / "params.yaml", {f"runconfig.{k}": v for k, v in run.items()})
        return train_recipe(params, Data(16, rows), done).stages[0]

    assert (stage(24, max_steps=6).epochs, stage(23, max_steps=6).epochs, stage(5, max_steps=6).epochs) == (1, 2, 5)
    assert stage(24, num_steps=3, done=2).train.steps == 5
    assert stage(24, num_steps=30, done=2).train.steps == 6
    assert stage(10, max_steps=100, num_epochs=3).train.steps == 6
