"""A run with a trained model, viewed without a network."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

sys.path.append(str(Path(__file__).parents[1] / "end_to_end"))

from small_run import build_corpus, headrace
from spiked_run import build_spiked

from headrace.view.app import application
from headrace.view.target import Target

TRAINED = "model: {layers: 1, width: 32, heads: 2}\n"
STEPS = "{train: {steps: 6, batch: 4, log_every: 1}, sequence_length: 128}"


@pytest.fixture(scope="session")
def viewed_corpus(tmp_path_factory) -> Path:
    """The small corpus, with a recipe that trains two stages for a few steps."""
    root = build_corpus(tmp_path_factory.mktemp("viewed"))
    recipe = (root / "recipe.yaml").read_text().replace("defaults: {sequence_length: 128}", f"defaults: {STEPS}")
    assert STEPS in recipe
    (root / "trained.yaml").write_text(recipe + TRAINED)
    return root


@pytest.fixture(scope="session")
def viewed(viewed_corpus, tmp_path_factory) -> Path:
    """A finished run of it. Tests that write into a run copy it first."""
    run = tmp_path_factory.mktemp("viewed-run") / "run"
    headrace("run", viewed_corpus / "trained.yaml", "--out", run, "--workers", 2)
    return run


@pytest.fixture(scope="session")
def spiked(tmp_path_factory) -> Path:
    """A finished run whose training met a corrupted document. Tests that write into it copy it first."""
    root = tmp_path_factory.mktemp("spiked")
    headrace("run", build_spiked(root), "--out", root / "run", "--workers", 0)
    return root / "run"


@pytest.fixture(scope="session")
def target(viewed) -> Target:
    """The run, opened."""
    return Target(viewed)


@pytest.fixture(scope="session")
def client(target) -> Iterator[TestClient]:
    """A client of its viewer, as a browser on this machine is."""
    with TestClient(application(target), base_url="http://localhost", follow_redirects=False) as client:
        yield client
