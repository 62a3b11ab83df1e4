"""pass@k equals the chance it estimates, by counting; its interval covers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.evaluate.pass_at_k import interval, pass_at_k


@pytest.mark.parametrize(("n", "c"), [(5, c) for c in range(6)] + [(7, 3), (1, 0), (1, 1)])
def test_it_is_the_share_of_draws_that_have_a_passing_one(n, c):
    passed = [True] * c + [False] * (n - c)
    for k in range(1, n + 1):
        draws = [any(one) for one in itertools.combinations(passed, k)]
        assert pass_at_k([n], [c], k)[0] == pytest.approx(sum(draws) / len(draws), abs=1e-12)


@given(st.integers(1, 300), st.data())
def test_it_is_the_published_formula(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    exact = 1 - math.comb(n - c, k) / math.comb(n, k)
    assert pass_at_k([n], [c], k)[0] == pytest.approx(exact, abs=1e-9)


def test_tasks_may_have_different_numbers_of_samples():
    assert pass_at_k([10, 20, 200], [0, 20, 100], 10) == pytest.approx(
        [0, 1, 1 - math.comb(100, 10) / math.comb(200, 10)]
    )
    with pytest.raises(ValueError, match="pass@2"):
        pass_at_k([1], [1], 2)


def test_the_interval_is_wilsons():
    # Newcombe (1998), table I: 81 of 263 and 0 of 20.
    assert interval(np.array([1.0] * 81 + [0.0] * 182)) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert interval(np.zeros(20)) == pytest.approx((0.0, 0.1611), abs=1e-4)
    low, high = interval(np.full(50, 0.5))
    assert low < 0.5 < high
