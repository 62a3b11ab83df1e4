"""Which cases of a parametrized test the main suite runs."""

from collections.abc import Iterable
from typing import Any

import pytest


def quick(cases: Iterable[Any], *chosen: Any) -> list[Any]:
    """All cases; those that are not chosen are slow tests, run by `make test-all` alone."""
    cases = list(cases)
    assert set(chosen) <= set(cases)
    return [case if case in chosen else pytest.param(case, marks=pytest.mark.slow) for case in cases]
