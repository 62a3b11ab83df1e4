"""Slices, epochs and weights against arithmetic."""

from __future__ import annotations

import pytest
from small_build import stage

from headrace.errors import UserError
from headrace.recipe.stages import StageSource
from headrace.sequence.epochs import SourceCount, resolve

COUNTS = {"a": SourceCount(1_000_000, 1000), "b": SourceCount(99_000, 1000)}


def test_slices_and_epochs_multiply() -> None:
    resolved = resolve(stage(sources={"a": {"slice": [0, 0.5], "epochs": 2.5}, "b": {}}), COUNTS)
    a, b = resolved.sources
    assert (a.epochs, a.copies, a.documents, a.tokens) == (2.5, 3, 1250, 1_251_250)
    assert [a.share(copy) for copy in range(4)] == [1, 1, 0.5, 0]
    assert (b.epochs, b.copies, b.documents, b.tokens) == (1, 1, 1000, 100_000)
    assert resolved.tokens == 1_351_250
    assert resolved.rows == 1_351_250 // 64
    assert resolved.steps(16) == resolved.rows // 16
    assert resolved.to_json()["sources"]["b"]["share"] == pytest.approx(100_000 / 1_351_250)


def test_weights_resolve_to_epochs_that_meet_the_total() -> None:
    sources = {"a": {"weight": 1, "slice": [0.5, 1]}, "b": {"weight": 3}}
    a, b = resolve(stage(sources=sources, tokens=4_000_000), COUNTS).sources
    assert a.tokens == 1_000_000
    assert a.epochs == pytest.approx(1_000_000 / 500_500)
    assert b.tokens == 3_000_000
    assert b.epochs == pytest.approx(30)


def test_published_counts_of_a_hundred_billion_stay_exact() -> None:
    # CrystalCoder's first phase: 79,721 steps of 2,112 rows of 2,048 tokens.
    total = 79_721 * 2112 * 2048
    config = stage(sources={"a": {"weight": 1}}, tokens=total, sequence_length=2048)
    resolved = resolve(config, {"a": SourceCount(690_000_000_000)})
    assert resolved.tokens == total
    assert resolved.steps(2112) == 79_721


def test_a_source_without_tokens_is_refused() -> None:
    with pytest.raises(UserError, match="'a' has no tokens") as caught:
        resolve(stage(), {"b": COUNTS["b"]})
    assert caught.value.where == "stages.one.sources.a"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"slice": (0.5, 1.5)}, "slice"),
        ({"slice": (0.5, 0.5)}, "slice"),
        ({"slice": (-0.1, 0.5)}, "slice"),
        ({"epochs": -1.0}, "-1 epochs"),
        ({"epochs": 0.0}, "0 epochs"),
        ({"epochs": 70_000.0}, "70000 epochs"),
    ],
)
def test_impossible_amounts_are_refused_without_the_schema_too(keys: dict, message: str) -> None:
    config = stage(sources={"a": {}})
    bad = StageSource.model_construct(**{"slice": (0.0, 1.0), "epochs": None, "weight": None, "fim": None, **keys})
    with pytest.raises(UserError, match=message):
        resolve(config.model_copy(update={"sources": {"a": bad}}), COUNTS)
