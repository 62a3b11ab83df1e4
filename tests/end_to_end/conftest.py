"""The corpus and a finished run of it, built once."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_run import build_corpus

from commands import headrace


@pytest.fixture(scope="session")
def corpus(once) -> Path:
    """The corpus with ``recipe.yaml``."""
    return once("small-corpus", build_corpus)


@pytest.fixture(scope="session")
def finished(corpus, once) -> Path:
    """A run of the recipe with two workers, to the last sequence."""
    recipe = corpus / "recipe.yaml"
    return once("small-run", lambda folder: headrace("run", recipe, "--out", folder / "run", "--workers", 2)) / "run"
