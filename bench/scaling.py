"""Two workers against one, for every bulk step of a run from .jsonl.zst to a sequence."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import replace

from bench import pipelines
from bench.corpus import texts as read_texts
from bench.harness import Result, Setting, require, result
from bench.sequence import BYTES_A_TOKEN
from bench.vocabularies import byte_level
from headrace.pipeline import digest

# Enough that a build outlasts the starts of its phases.
LEAST_TOKENS = 60e6


def run(setting: Setting) -> Iterator[Result]:
    """The seconds of each artifact with two workers (ours) and with one, runs in turn, digests equal."""
    if len(os.sched_getaffinity(0)) < 2:
        return
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
    seconds: dict[str, dict[int, list[float]]] = {}
    digests = set()
    for turn in range(setting.rounds + 1):
        for workers in (1, 2):
            made = pipelines.run(recipe, setting.work / f"scaling-{workers}", None, workers)
            digests.add(digest(made.folder)["total"])
            if turn:
                for name, taken in made.artifacts.items():
                    seconds.setdefault(name[:-9], {1: [], 2: []})[workers].append(taken)
    require(len(digests) == 1, "the artifacts depend on the number of workers")
    for name, by in seconds.items():
        if name != "tokenizer":  # a file that is copied
            yield result(
                replace(setting, cores=2), f"scaling, {name}", "itself with one worker", "s", by[2], by[1], 1.8
            )
