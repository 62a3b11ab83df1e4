"""The corpus and a finished run of it, built once."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_run import build_corpus, headrace


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """The corpus with ``recipe.yaml``."""
    return build_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def finished(corpus, tmp_path_factory) -> Path:
    """A run of the recipe with two workers, to the last sequence."""
    run = tmp_path_factory.mktemp("finished") / "run"
    headrace("run", corpus / "recipe.yaml", "--out", run, "--workers", 2)
    return run
