"""Two workers against one: every bulk step of a run from .jsonl.zst to a sequence, and what follows the signatures.

Finding duplicates and giving verdicts takes a second or less for the documents of the corpus, so these two are timed
again on synthetic documents without text, those of :mod:`bench.scale`.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace

from bench import pipelines, scale
from bench.corpus import texts as read_texts
from bench.harness import LEAST_SECONDS, Result, Setting, require, result
from bench.sequence import BYTES_A_TOKEN
from bench.vocabularies import byte_level
from headrace.run_folder import digest

# Enough that a build outlasts the starts of its phases, and that its shards of 64 MB can be shared evenly.
LEAST_TOKENS = 500e6
# In 12 shards, as many for each worker.
SYNTHETIC = 12_000_000
SYNTHETIC_KINDS = ("duplicates", "verdicts")

Seconds = dict[str, dict[int, list[float]]]


def run(setting: Setting) -> Iterator[Result]:
    """The seconds of each artifact with two workers (ours) and with one, runs in turn, digests equal."""
    if len(os.sched_getaffinity(0)) < 2:
        return
    for name, by in (whole_runs(setting) | synthetic(setting)).items():
        yield result(replace(setting, cores=2), f"scaling, {name}", "itself with one worker", "s", by[2], by[1], 1.8)


def whole_runs(setting: Setting) -> Seconds:
    """Seconds of each artifact from .jsonl.zst on, by workers; an artifact that is one task is left out."""
    definition = byte_level(setting, read_texts(setting.corpus))
    sections = pipelines.all_steps(setting) | {"tokenizer": pipelines.tokenizer_file(setting, definition)}
    recipe = pipelines.recipe(setting, **sections)
    epochs = max(1.0, float(math.ceil(min(64.0, LEAST_TOKENS * BYTES_A_TOKEN / (setting.mb * 1e6)))))
    stages = {
        "plain": {name: {"epochs": epochs} for name in recipe["sources"]},
        "fim": {name: {"fim": {"rate": 0.9}} for name in pipelines.code_sources(setting)},
    }
    recipe["stages"] = [
        {"name": name, "sequence_length": pipelines.SEQUENCE_LENGTH, "sources": sources}
        for name, sources in stages.items()
    ]
    seconds: Seconds = {}
    digests = set()
    for turn in range(setting.rounds + 1):
        for workers in (1, 2):
            made = pipelines.run(recipe, setting.work / f"scaling-{workers}", None, workers)
            digests.add(digest(made.folder)["total"])
            if turn:
                steps = {name[:-9]: taken for name, taken in made.artifacts.items()}
                for name, taken in (steps | {"all of it": sum(steps.values())}).items():
                    seconds.setdefault(name, {1: [], 2: []})[workers].append(taken)
    require(len(digests) == 1, "the artifacts depend on the number of workers")
    del seconds["tokenizer"]
    return seconds


def synthetic(setting: Setting) -> Seconds:
    """Seconds of each phase of duplicates and verdicts over :data:`SYNTHETIC` documents, by workers."""
    seconds: Seconds = {}
    for turn in range(setting.rounds + 1):
        for workers in (1, 2):
            folder = setting.work / "scaling-synthetic"
            shutil.rmtree(folder, ignore_errors=True)
            row = scale.measure(folder, SYNTHETIC, workers, pipelines.MEMORY)
            shutil.rmtree(folder)
            taken = {name: value for name, value in row["phases"].items() if name.split()[0] in SYNTHETIC_KINDS}
            taken["duplicates signatures"] -= row["making_fingerprints"]
            for kind in SYNTHETIC_KINDS:
                taken[kind] = sum(value for name, value in taken.items() if name.startswith(kind))
            for name, value in taken.items():
                if turn and value > LEAST_SECONDS:
                    name = f"{name}, {SYNTHETIC // 10**6} M documents"
                    seconds.setdefault(name, {1: [], 2: []})[workers].append(value)
    return {name: by for name, by in seconds.items() if len(by[1]) == len(by[2])}
