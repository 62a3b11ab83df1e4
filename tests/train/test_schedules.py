"""Learning rates: CrystalCoder's published phases, and the shapes."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from headrace.recipe.training import ScheduleSection, TrainSection
from headrace.train.schedules import learning_rate


def section(**values) -> ScheduleSection:
    return ScheduleSection.model_validate(values)


def sequential(schedulers: list[dict], steps: int) -> np.ndarray:
    """float64[steps]: the rates of a list of schedulers, by the Model Zoo's closed forms.

    Linear and CosineDecay: ``lr_scheduler.PolynomialLR`` and ``CosineDecayLR``, that end at ``end_learning_rate``;
    SequentialLR: each begins at its own step 0 where the one before has had its steps.
    """
    out, first = np.empty(steps), 0
    for index, one in enumerate(schedulers):
        length = one.get("steps") or one["decay_steps"]
        last = steps if index == len(schedulers) - 1 else first + length
        step = np.minimum(np.arange(last - first), length).astype(np.float64)
        initial, end = one["initial_learning_rate"], one["end_learning_rate"]
        if one["scheduler"] == "Linear":
            rates = (initial - end) * (1 - step / length) + end
        else:
            rates = (initial - end) * (np.cos(np.pi / length * step) + 1) * 0.5 + end
        out[first:last] = rates[: max(0, steps - first)]
        first = last
    return out


# Phase: the steps that it ran and the rate that it reached (crystalcoder-train, params.yaml).
PHASES = {1: (79_721, 0.008787), 2: (214_387, 0.00013679), 3: (27_728, 0.0002)}


@pytest.mark.parametrize("phase", PHASES)
def test_crystalcoders_rates_at_every_step(phase, shared):
    steps, reached = PHASES[phase]
    published = yaml.safe_load((shared / f"fixtures/crystalcoder/params_phase{phase}.yaml").read_text())
    lines = published["optimizer"]["learning_rate"]
    pieces = [
        {
            "start": line["initial_learning_rate"],
            "end": line["end_learning_rate"],
            "steps": line.get("steps") or line["decay_steps"],
        }
        for line in lines
    ]
    schedule = section(shape="pieces", pieces=pieces)
    rates = np.array([learning_rate(schedule, 1.0, step, steps) for step in range(steps)])
    np.testing.assert_allclose(rates, sequential(lines, steps), rtol=1e-12, atol=1e-18)
    assert learning_rate(schedule, 1.0, steps, steps) == pytest.approx(reached, rel=1e-4)
    assert learning_rate(schedule, 1.0, 10**6, steps) == pieces[-1]["end"]


def test_pieces_of_every_shape():
    pieces = [
        {"start": 0.0, "end": 0.5, "steps": 4},
        {"start": 0.5, "end": 0.1, "steps": 10, "shape": "cosine"},
        {"start": 0.1, "end": 0.001, "steps": 8, "shape": "exponential"},
    ]
    schedule = section(shape="pieces", pieces=pieces)
    rates = [learning_rate(schedule, 1.0, step, 30) for step in range(30)]
    lines = [
        {"scheduler": "Linear", "initial_learning_rate": 0.0, "end_learning_rate": 0.5, "steps": 4},
        {"scheduler": "CosineDecay", "initial_learning_rate": 0.5, "end_learning_rate": 0.1, "steps": 10},
    ]
    np.testing.assert_allclose(rates[:14], sequential(lines, 14), rtol=1e-12)
    # Keras' ExponentialDecay: initial * rate ** (step / steps).
    np.testing.assert_allclose(rates[14:22], 0.1 * 0.01 ** (np.arange(8) / 8), rtol=1e-12)
    assert rates[22:] == [0.001] * 8
    with pytest.raises(ValidationError, match="begin or end at 0"):
        section(shape="pieces", pieces=[{"start": 0.1, "end": 0.0, "steps": 3, "shape": "exponential"}])


@pytest.mark.parametrize("shape", ["linear", "cosine", "wsd"])
def test_shapes_rise_to_the_peak_and_end_where_they_should(shape):
    schedule = section(shape=shape, warmup=10, end=0.1)
    rates = [learning_rate(schedule, 2.0, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert rates[-1] == pytest.approx(0.2)
    assert all(a >= b for a, b in pairwise(rates[9:]))
    half = {"linear": 1.1, "cosine": 1.1, "wsd": 2.0}[shape]
    assert rates[54] == pytest.approx(half)


def test_wsd_holds_then_decays_over_its_share():
    schedule = section(shape="wsd", warmup=0.1, decay=0.25, end=0.0)
    rates = [learning_rate(schedule, 1.0, step, 40) for step in range(40)]
    assert rates[3:30] == [1.0] * 27
    assert rates[30:] == pytest.approx([1 - (i + 1) / 10 for i in range(10)])


def test_constant_and_degenerate_lengths():
    assert learning_rate(section(shape="constant", warmup=0), 3.0, 7, 8) == 3.0
    for shape in ("linear", "cosine", "wsd", "constant"):
        for warmup in (0, 1, 5):
            rates = [learning_rate(section(shape=shape, warmup=warmup), 1.0, step, 1) for step in range(3)]
            assert all(math.isfinite(rate) and 0 <= rate <= 1 for rate in rates)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"schedule": {"shape": "pieces"}}, "`pieces` and `shape: pieces` belong together"),
        (
            {"schedule": {"pieces": [{"start": 0, "end": 1, "steps": 2}]}},
            "`pieces` and `shape: pieces` belong together",
        ),
        (
            {
                "schedule": {"shape": "pieces", "pieces": [{"start": 0, "end": 1, "steps": 2}]},
                "optimizer": {"learning_rate": 1},
            },
            "`schedule: pieces` sets every rate itself",
        ),
        (
            {"schedule": {"shape": "pieces", "warmup": 3, "pieces": [{"start": 0, "end": 1, "steps": 2}]}},
            "`shape: pieces` sets every rate itself",
        ),
        ({"leave_out": [[4, 3]]}, "rows 4 to 3 are none"),
        ({"optimizer": {"betas": [0.9, 1.0]}}, "at least 0 and below 1"),
    ],
)
def test_sections_that_contradict_themselves_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        TrainSection.model_validate(values)
