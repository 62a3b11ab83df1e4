"""Figures of scores, against counting pairs and against draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.select.quality.figures import auc, auc_error


@given(st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 0.25, 0.5, np.nan]), st.booleans()), max_size=12))
def test_auc_is_the_share_of_pairs_in_order(drawn: list[tuple[float, bool]]) -> None:
    scores = np.array([score for score, _ in drawn], dtype=np.float32)
    labels = np.array([good for _, good in drawn], dtype=np.uint8)
    known = np.where(np.isnan(scores), -np.inf, scores)
    pairs = [(known[i] > known[k]) + 0.5 * (known[i] == known[k]) for i in np.flatnonzero(labels == 1)
             for k in np.flatnonzero(labels == 0)]  # fmt: skip
    assert auc(scores, labels) == (pytest.approx(np.mean(pairs)) if pairs else None)


@pytest.mark.parametrize(("positives", "negatives", "apart"), [(20, 26, 1.0), (100, 30, 0.5), (60, 60, 2.0)])
def test_the_error_of_an_auc_is_its_deviation_over_draws(positives: int, negatives: int, apart: float) -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat(np.array([1, 0], dtype=np.uint8), [positives, negatives])
    drawn = [auc(rng.standard_normal(len(labels)) + apart * labels, labels) for _ in range(500)]
    assert auc_error(float(np.mean(drawn)), positives, negatives) == pytest.approx(np.std(drawn), rel=0.3)


def test_a_perfect_auc_of_few_examples_has_an_error() -> None:
    assert 0.03 < auc_error(1.0, 10, 1000) < 0.1
    assert auc_error(1.0, 5000, 5000) < 0.001
    assert np.isfinite(auc_error(0.0, 1, 1))
