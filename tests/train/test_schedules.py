"""Learning rates: CrystalCoder's published phases, and the shapes."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import yaml
from pydantic import ValidationError

from headrace.recipe.training import ScheduleSection, TrainSection
from headrace.train.schedules import learning_rate


def section(**values) -> ScheduleSection:
    return ScheduleSection.model_validate(values)


# Phase: steps run, warm-up, peak, end of the decay and its length; the rate reached (crystalcoder-train, params.yaml).
PHASES = {
    1: (79_721, 86, 0.012, 0.00012408, 294_337, 0.008787),
    2: (214_387, 86, 0.0087825, 0.00013679, 214_301, 0.00013679),
    3: (27_728, 276, 0.002, 0.0002, 27_452, 0.0002),
}


@pytest.mark.parametrize("phase", PHASES)
def test_crystalcoders_phases(phase, shared):
    steps, warmup, peak, end, decay, reached = PHASES[phase]
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
    assert pieces == [
        {"start": 0.0, "end": peak, "steps": warmup},
        {"start": peak, "end": end, "steps": decay},
    ]
    schedule = section(shape="pieces", pieces=pieces)
    assert learning_rate(schedule, 1.0, 0, steps) == 0
    assert learning_rate(schedule, 1.0, warmup, steps) == peak
    assert learning_rate(schedule, 1.0, warmup // 2, steps) == pytest.approx(peak / 2)
    assert learning_rate(schedule, 1.0, steps, steps) == pytest.approx(reached, rel=1e-4)
    assert max(learning_rate(schedule, 1.0, step, steps) for step in range(0, steps, 43)) <= peak
    assert learning_rate(schedule, 1.0, 10**6, steps) == end


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
        ({"batch": 10, "micro_batch": 4}, "not a multiple of micro_batch"),
        ({"optimizer": {"betas": [0.9, 1.0]}}, "at least 0 and below 1"),
    ],
)
def test_sections_that_contradict_themselves_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        TrainSection.model_validate(values)
