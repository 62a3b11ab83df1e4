"""The page of a limit for 10^7 documents: what another value would move, and the memory that takes."""

from __future__ import annotations

import random
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
from starlette.testclient import TestClient

from bench.harness import Result, Setting, result
from bench.repeated import repeat
from headrace.flow.artifact import Artifact
from headrace.pipeline import run as run_recipe
from headrace.recipe.load import load_recipe
from headrace.view.app import application
from headrace.view.target import Target

DOCUMENTS = 10_000_000
SHARDS = 100  # of the size that 32 MB of short documents have
VALUES = 24
TARGET = 300  # milliseconds of a page
LIMITS = ("filters.short.min_characters", "filters.code.min_alphabetic")


def run(setting: Setting) -> Iterator[Result]:
    """Milliseconds until a moved limit is answered, as HTML, without the network."""
    folder = _many(setting.work / "limits", DOCUMENTS, SHARDS)
    with TestClient(application(Target(folder)), base_url="http://localhost") as client:
        client.get("/")  # imports
        for limit, low, high in zip(LIMITS, (20, 0.1), (400, 0.9), strict=True):
            start = time.perf_counter()
            while "spinner" in client.get(f"/removed/limit?limit={limit}").text:
                time.sleep(0.2)
            counting, taken = time.perf_counter() - start, []
            for value in np.linspace(low, high, VALUES * setting.rounds):
                start = time.perf_counter()
                answer = client.get(f"/removed/limit?limit={limit}&value={value:.3f}")
                taken.append((time.perf_counter() - start) * 1e3)
                assert answer.status_code == 200, answer.text
            rounds = [float(np.median(taken[i :: setting.rounds])) for i in range(setting.rounds)]
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
            told = f"{DOCUMENTS:,} documents, counted once in {counting:.0f} s; the slowest of {len(taken)} took "
            told += f"{max(taken):.0f} ms; at most {memory:.0f} MB of memory"
            yield result(setting, f"view, {limit} moved", None, "ms", rounds, None, TARGET, "ours", told)
    shutil.rmtree(folder.parent)


def _many(folder: Path, documents: int, shards: int) -> Path:
    """A run of so many short documents: one shard is made, and stands for all."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng = random.Random(1)
    letters = "abcdefghij  0123456789"
    with open(folder / "a.jsonl", "wb") as file:
        for number in range(documents // shards):
            text = "".join(rng.choices(letters[: rng.randint(8, len(letters))], k=int(rng.lognormvariate(5, 0.6))))
            file.write(orjson.dumps({"text": f"{text}{number}"}) + b"\n")
    recipe = {
        "name": "many",
        "sources": {"a": {"files": str(folder / "a.jsonl")}},
        "filters": {"short": {"min_characters": 100}, "code": {"min_alphabetic": 0.3}},
        "deduplicate": None,
        "split": {"check": None},
        "tokenizer": {"train": {"vocab_size": 300}},
        "stages": [{"name": "s", "sequence_length": 64, "sources": {"a": {}}}],
    }
    run_recipe(load_recipe(recipe), folder / "run", until="verdicts")
    for path in sorted((folder / "run" / "artifacts").iterdir()):
        repeat(Artifact.open(path), shards)
    return folder / "run"
