"""Which cases of a parametrized test the main suite runs, and how many examples of a property it tries."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import settings

# Examples that Hypothesis tries if not told otherwise.
ALL = 100


def quick(cases: Iterable[Any], *chosen: Any) -> list[Any]:
    """All cases; those that are not chosen are slow tests, run by `make test-all` alone."""
    cases = list(cases)
    assert set(chosen) <= set(cases)
    return [case if case in chosen else pytest.param(*_values(case), marks=pytest.mark.slow) for case in cases]


def _values(case: Any) -> tuple[Any, ...]:
    return case if isinstance(case, tuple) else (case,)


def examples(count: int) -> int:
    """How many examples of a property are tried: so many in `make test-all`, and a share of them in the main suite."""
    return max(1, count * settings().max_examples // ALL)
