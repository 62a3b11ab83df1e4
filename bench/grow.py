"""A corpus that grows: one file in a hundred is new, and a finished run is brought up to date.

The new run must leave the artifacts that a run from nothing leaves. Wall time, the start of the workers included in
both: it is what a user waits; the note tells the processor time of all processes too, which others on the machine
disturb less. The steps that look at all documents together (candidates, components, verdicts, the sequence) are done
again in full.
"""

from __future__ import annotations

import resource
import shutil
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from bench import pipelines
from bench.corpus import files, lines
from bench.corpus import texts as read_texts
from bench.harness import Result, Setting, megabytes, require, versions
from bench.vocabularies import byte_level
from headrace import pipeline, run_folder
from headrace.documents.readers.streams import zstd
from headrace.recipe.load import load_recipe

NEW_SHARE = 0.01
TARGET = 10  # times sooner than the first run


class Took(NamedTuple):
    """Seconds of a run: of the clock, and of the processors in all its processes."""

    wall: float
    processors: float


def run(setting: Setting) -> Iterator[Result]:
    """How many times sooner the second run is done than the first, to the verdicts, the tokens and the sequence."""
    texts = read_texts(setting.corpus)
    definition = byte_level(setting, texts)
    corpus, new = setting.work / "growing", setting.work / "growing-new"
    held = hold_back(setting.corpus, corpus, new)
    sections = pipelines.all_steps(setting) | {"tokenizer": pipelines.tokenizer_file(setting, definition)}
    recipe = pipelines.recipe(replace(setting, corpus=corpus), **sections)
    stage = {"name": "all", "sequence_length": pipelines.SEQUENCE_LENGTH, "sources": {s: {} for s in recipe["sources"]}}
    recipe |= {"stages": [stage]}
    for until in ("verdicts", "tokens", "sequence-all"):
        figures = [once(setting, recipe, corpus, new, until, check=turn == 0) for turn in range(setting.rounds + 1)][1:]
        times = statistics.median(first.wall / again.wall for first, again in figures)
        walls = " after ".join(f"{statistics.median(pair[i].wall for pair in figures):.2f} s" for i in (1, 0))
        spent = " after ".join(f"{statistics.median(pair[i].processors for pair in figures):.2f} s" for i in (1, 0))
        size = f"{megabytes(texts):.0f} MB of text, {held / 1e6:.1f} MB of it new"
        note = f"{size}; {walls}; {spent} of processor time"
        name = f"grow, until {until.split('-')[0]}"
        yield Result(name, None, times, None, "times sooner", None, TARGET, "ours", setting.cores, versions(None), note)


def hold_back(origin: Path, corpus: Path, new: Path) -> int:
    """Copy a corpus but for the last :data:`NEW_SHARE` of each source, which goes to files of their own.

    Returns:
        The bytes of those, as JSON lines.
    """
    for folder in (corpus, new):
        shutil.rmtree(folder, ignore_errors=True)
    held = 0
    for source, paths in groupby(files(origin), key=lambda path: path.parent.name):
        every = {path.name: list(lines(path)) for path in paths}
        wanted = NEW_SHARE * sum(len(line) for rows in every.values() for line in rows)
        last, taken = list(every)[-1], []
        while sum(map(len, taken)) < wanted and len(every[last]) > 1:
            taken.append(every[last].pop())
        for name, rows in every.items():
            write(corpus / source / name, rows)
        write(new / source / f"{next(iter(every))}-new.jsonl.zst", taken)
        held += sum(map(len, taken))
    return held


def write(path: Path, rows: list[bytes]) -> None:
    """Write lines as .jsonl.zst."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zstd.compress(b"".join(rows), 3))


def once(
    setting: Setting, recipe: dict[str, Any], corpus: Path, new: Path, until: str, check: bool
) -> tuple[Took, Took]:
    """What a first run took, and what the second did, once the new files are there too."""
    folder = setting.work / "grown"
    shutil.rmtree(folder, ignore_errors=True)
    added = {path: corpus / path.relative_to(new) for path in files(new)}
    for path in added.values():
        path.unlink(missing_ok=True)
    first = timed(recipe, folder, until, setting.cores)
    for path, target in added.items():
        shutil.copyfile(path, target)
    again = timed(recipe, folder, until, setting.cores)
    if check:
        made = run_folder.digest(folder)
        shutil.rmtree(folder)
        timed(recipe, folder, until, setting.cores)
        require(run_folder.digest(folder) == made, "a run that grew differs from a run from nothing")
    return first, again


def timed(recipe: dict[str, Any], folder: Path, until: str, cores: int) -> Took:
    """What a run took."""
    wall, processors = time.perf_counter(), _processors()
    pipeline.run(load_recipe(recipe), folder, workers=cores, memory=pipelines.MEMORY, until=until)
    return Took(time.perf_counter() - wall, _processors() - processors)


def _processors() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
