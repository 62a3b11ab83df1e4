"""muP: sizes of activations do not change with width, and the best learning rate stays."""

from __future__ import annotations

import math

import pytest
import torch

from headrace.errors import UserError
from headrace.model.config import ModelConfig, Mup
from headrace.model.mup import at_width
from headrace.model.presets import CRYSTALCODER_7B
from headrace.model.transformer import Transformer
from headrace.mup import Trial, check, sizes
from headrace.recipe.training import OptimizerSection
from headrace.report.charts.lines import Panel, lines_chart

BASE = ModelConfig(vocab_size=64, layers=2, width=32, heads=2, ffn=64, tied=False, mup=Mup(attention="d"))


def rows(count: int = 96, length: int = 24) -> torch.Tensor:
    """Rows in which each token follows from the one before."""
    first = torch.randint(0, 64, (count, 1), generator=torch.Generator().manual_seed(0))
    return (first + 5 * torch.arange(length + 1)) % 64


def slope(by_width: dict[int, float]) -> float:
    (a, x), *_, (b, y) = sorted(by_width.items())
    return math.log(y / x) / math.log(b / a)


def test_crystalcoder_is_its_base_at_another_width():
    base = at_width(CRYSTALCODER_7B, 256)
    assert base.init.hidden_std == pytest.approx(0.073)
    assert base.mup.logit_multiplier == pytest.approx(2.22)
    assert base.mup.hidden_learning_rate == 1
    assert (base.heads, base.head_size, base.init.embedding_std) == (2, 128, 0.073)
    again = at_width(base, 4096)
    assert again.init.output_std == pytest.approx(CRYSTALCODER_7B.init.output_std)
    assert again.mup.hidden_learning_rate == CRYSTALCODER_7B.mup.hidden_learning_rate
    for width in (80, 0, -128):
        with pytest.raises(UserError, match=r"would have -?\d(\.\d+)? heads"):
            at_width(CRYSTALCODER_7B, width)


@pytest.mark.parametrize("tied", [False, True])
def test_first_logits_fall_no_faster_than_the_root_of_the_width(tied):
    """An untied head's do as 1 / sqrt(width) under muP: sums of independent terms, over the width (MuReadout)."""
    found = {}
    for width in (64, 256, 1024):
        model = Transformer(at_width(BASE.model_copy(update={"tied": tied}), width))
        model.initialise(1)
        found[width] = sizes(model, rows(4)[:, :-1])
    assert -0.6 < slope({width: seen["logits"] for width, seen in found.items()}) < 0.1
    for name in ("attention", "feed-forward", "last block"):
        assert abs(slope({width: seen[name] for width, seen in found.items()})) < 0.15


def test_after_some_steps_sizes_do_not_change_with_width_and_the_best_rate_stays():
    trial = Trial(BASE, OptimizerSection(learning_rate=0.01), rows(), 4, 1)
    found = check(trial, [128, 32, 64], [0.0005, 0.01, 1.0], 12)
    assert found.widths == [32, 64, 128]
    for name, by in found.coordinates.items():
        assert abs(slope({width: seen[-1] for width, seen in by.items()})) < 0.35, name
    assert {found.best(width) for width in found.widths} == {0.01}


def standard(config: ModelConfig, width: int) -> ModelConfig:
    """Another width without muP: the same learning rate for all, logits as they come."""
    wide = at_width(config, width)
    return wide.model_copy(update={"mup": Mup()})


@pytest.mark.slow
def test_without_mup_sizes_grow_with_the_width_and_the_best_rate_falls():
    rates = [0.0003, 0.001, 0.003, 0.01, 0.03]
    mup, plain = (
        check(Trial(BASE, OptimizerSection(learning_rate=0.01), rows(), 4, 1, scaled), [32, 128, 512], rates, 12)
        for scaled in (at_width, standard)
    )
    assert abs(mup.power("last block")) < 0.15
    assert plain.power("last block") > 0.3
    assert mup.best(32) == mup.best(512)
    assert plain.best(512) < plain.best(32)


def test_models_that_memory_does_not_hold_are_refused_first():
    with pytest.raises(UserError, match=r"The model of width 3200000 takes [\d.]+ GB, more than is free"):
        check(Trial(BASE, OptimizerSection(), rows(), 4, 1), [32, 3_200_000], [0.01], 4)


def test_few_steps_read_their_rows_again():
    found = check(Trial(BASE, OptimizerSection(), rows(16), 4, 1), [64, 32, 32], [0.01], 4)
    assert found.widths == [32, 64]
    assert all(len(seen) == 6 for by in found.coordinates.values() for seen in by.values())


def test_its_chart_draws_every_width_and_size():
    series = {"width 32": {0.001: 5.0, 0.01: 4.0}, "width 64": {0.001: 5.1, 0.01: float("nan")}}
    chart = lines_chart(
        "muP", "said", [Panel("Loss", "learning rate", series), Panel("Sizes", "width", {"a": {32.0: 1.0}})]
    )
    drawn = chart.file("mup")
    assert drawn.count("<path") == 3 + 4 + 3  # lines, marks on them, marks in the legend
    assert "nan" not in drawn
