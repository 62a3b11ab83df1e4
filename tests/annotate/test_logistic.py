"""Logistic regression by Newton's method, beside scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.annotate import logistic


def made(rows: int, columns: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    states = draw.normal(size=(rows, columns)) * draw.uniform(0.1, 30, columns) + draw.normal(size=columns) * 9
    logits = (states - states.mean(0)) / states.std(0) @ draw.normal(size=columns)
    labels = (draw.uniform(size=rows) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    return states.astype(np.float32), labels, draw.choice([1, 0.5, 1 / 3], rows).astype(np.float32)


@pytest.mark.parametrize(("rows", "columns"), [(30, 4), (400, 20), (50, 80), (9000, 3)])
def test_the_solution_is_that_of_scikit_learn(rows, columns):
    linear = pytest.importorskip("sklearn.linear_model")
    states, labels, shares = made(rows, columns)
    weights, bias = logistic.fit(states, labels, shares)
    mean = np.average(states, axis=0, weights=shares)
    scale = np.sqrt(np.average((states - mean) ** 2, axis=0, weights=shares))
    peer = linear.LogisticRegression(C=1 / logistic.PENALTY, tol=1e-10, max_iter=10_000)
    peer.fit((states - mean) / scale, labels, shares)
    np.testing.assert_allclose(states @ weights + bias, peer.decision_function((states - mean) / scale), atol=2e-3)


def test_labels_that_are_alone_and_columns_that_never_change_do_no_harm():
    states, labels, shares = made(40, 5)
    states[:, 2] = 7
    for told in (labels, np.ones_like(labels), np.zeros_like(labels)):
        weights, bias = logistic.fit(states, told, shares)
        assert np.isfinite([*weights, bias]).all()


def test_separable_classes_have_a_solution():
    states, _, shares = made(200, 6)
    labels = (states[:, 0] > np.median(states[:, 0])).astype(np.float32)
    weights, bias = logistic.fit(states, labels, shares)
    assert (((states @ weights + bias) > 0) == labels).mean() > 0.9
