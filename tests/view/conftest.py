"""A run with a trained model, viewed without a network."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

sys.path.append(str(Path(__file__).parents[1] / "end_to_end"))

import cleaned_run
import hostile_run
from small_run import build_corpus
from spiked_run import build_spiked

from commands import headrace
from headrace.view.app import application
from headrace.view.target import Target

TRAINED = "model: {layers: 1, width: 32, heads: 2}\n"
STEPS = "{train: {steps: 6, batch: 4, log_every: 1, held_out: {rows: 16}}, sequence_length: 128}"


@pytest.fixture(scope="session")
def viewed_corpus(once) -> Path:
    """The small corpus, with a recipe that trains two stages for a few steps."""

    def build(root: Path) -> None:
        recipe = build_corpus(root) / "recipe.yaml"
        text = recipe.read_text().replace("defaults: {sequence_length: 128}", f"defaults: {STEPS}")
        assert STEPS in text
        (root / "trained.yaml").write_text(text + TRAINED)

    return once("viewed-corpus", build)


@pytest.fixture(scope="session")
def viewed(viewed_corpus, once) -> Path:
    """A finished run of it. Tests that write into a run copy it first."""
    recipe = viewed_corpus / "trained.yaml"
    return once("viewed", lambda folder: headrace("run", recipe, "--out", folder / "run", "--workers", 0)) / "run"


@pytest.fixture(scope="session")
def spiked(once) -> Path:
    """A finished run whose training met a corrupted document. Tests that write into it copy it first."""

    def build(folder: Path) -> None:
        headrace("run", build_spiked(folder), "--out", folder / "run", "--workers", 0)

    return once("spiked", build) / "run"


@pytest.fixture(scope="session")
def cleaned(once) -> Path:
    """A finished run whose documents are removed for many reasons. Tests that write into it copy it first."""

    def build(folder: Path) -> None:
        cleaned_run.make(cleaned_run.write_corpus(folder / "corpus"), folder / "run")

    return once("cleaned", build) / "run"


@pytest.fixture(scope="session")
def hostile(once) -> Path:
    """A finished run of hostile texts and names."""

    def build(folder: Path) -> None:
        hostile_run.make(hostile_run.write_corpus(folder / "corpus"), folder / "run")

    return once("hostile", build) / "run"


@pytest.fixture(scope="session")
def target(viewed) -> Target:
    """The run, opened."""
    return Target(viewed)


@pytest.fixture(scope="session")
def client(target) -> Iterator[TestClient]:
    """A client of its viewer, as a browser on this machine is."""
    with TestClient(application(target), base_url="http://localhost", follow_redirects=False) as client:
        yield client
