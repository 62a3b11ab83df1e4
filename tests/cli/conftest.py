"""Commands that may fail."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from subprocess import CompletedProcess

import pytest

from commands import headrace


@pytest.fixture
def command() -> Callable[..., CompletedProcess[str]]:
    """``command("status", run)``: the exit code and what was printed."""
    return partial(headrace, check=False)
