"""What each step of a run costs: processor time of a core, and what lies on disk. ``headrace plan`` reckons with these.

Processor time of all processes, not wall time: it is what a core gets through however many others are at work. What a
run over very little text takes is taken off, as it is what each worker pays once. The events of the run tell its phases
apart.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench import pipelines
from bench.corpus import texts as read_texts
from bench.harness import LEAST_SECONDS, Result, Setting, versions
from bench.vocabularies import byte_level
from headrace import pipeline
from headrace.flow.artifact import Artifact
from headrace.recipe.load import load_recipe

LITTLE = 2_000_000  # bytes of text of the run that is taken off: it loads the same kernels
FTFY_SHARE = 16  # ftfy's normalisation is many times slower than NFC, so it gets this part of the text


@dataclass
class Meter:
    """Listens to a run: processor seconds of each (kind, phase), and the resident memory that workers began with."""

    seconds: dict[tuple[str, str], float] = field(default_factory=dict)
    base: int = 0
    _now: tuple[str, str] = ("", "")
    _since: float = 0.0

    def __call__(self, event: dict[str, Any]) -> None:
        if event["event"] == "worker":
            self.base = max(self.base, event["base"])
        elif event["event"] == "phase":
            self._turn((event["artifact"][:-9], event["phase"]))
        elif event["event"] == "artifact":
            self._turn(("", ""))

    def _turn(self, now: tuple[str, str]) -> None:
        at = processor_seconds()
        self.seconds[self._now] = self.seconds.get(self._now, 0.0) + at - self._since
        self._now, self._since = now, at

    def of(self, kind: str, *phases: str) -> float:
        """Seconds of a kind of artifact, of some of its phases or of all."""
        return sum(s for (k, phase), s in self.seconds.items() if k == kind and (not phases or phase in phases))


def processor_seconds() -> float:
    """Processor time of this process and its children so far."""
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(t.user + t.system for t in times)


@dataclass(frozen=True)
class Made:
    """A finished run: its folder and its meter."""

    folder: Path
    meter: Meter

    def artifact(self, prefix: str) -> Artifact:
        """The artifact whose name begins so."""
        [path] = (self.folder / "artifacts").glob(f"{prefix}-????????")
        return Artifact.open(path)


def make(recipe: dict[str, Any], folder: Path, until: str | None) -> Made:
    """Run a recipe with one worker; what the folder holds already is kept and costs nothing."""
    meter = Meter()
    pipeline.run(load_recipe(recipe), folder, workers=1, memory=pipelines.MEMORY, until=until, listener=meter)
    return Made(folder, meter)


def run(setting: Setting) -> Iterator[Result]:
    """Rates, disk and memory, each the median of the rounds after one that is not measured."""
    definition = byte_level(setting, read_texts(setting.corpus))
    recipe = pipelines.recipe(setting, tokenizer=pipelines.tokenizer_file(setting, definition))
    recipe |= pipelines.all_steps(setting)
    plain = {"sources": {name: {"epochs": 2} for name in recipe["sources"]}}
    fim = {"sources": {name: {"fim": {"rate": 1.0}} for name in recipe["sources"]}}
    recipe["stages"] = [
        {"name": name, "sequence_length": pipelines.SEQUENCE_LENGTH, **stage}
        for name, stage in (("plain", plain), ("fim", fim))
    ]
    figures: dict[tuple[str, str], list[float]] = {}
    for turn in range(setting.rounds + 1):
        for name, unit, value in once(setting, recipe):
            if turn:
                figures.setdefault((name, unit), []).append(value)
    for (name, unit), values in figures.items():
        value, note = (
            statistics.median(values),
            f"{'processor time, ' if name.startswith('step') else ''}{setting.mb:g} MB of text",
        )
        yield Result(name, None, value, None, unit, None, None, "ours", 1, versions(None), note)


def once(setting: Setting, recipe: dict[str, Any]) -> Iterator[tuple[str, str, float]]:
    """The figures of one round: name, unit, value. A rate is that of the text beyond the first :data:`LITTLE` bytes."""
    folder = setting.work / "steps"
    little = spent(limited(recipe, LITTLE), folder, LITTLE)
    much = spent(recipe, folder, max(LITTLE * 4, setting.mb * 1e6 / FTFY_SHARE))
    for (name, unit), (amount, seconds) in much.costs.items():
        less, sooner = little.costs[name, unit]
        if seconds - sooner > LEAST_SECONDS:  # less is no more than the clock's grain and the chance of the moment
            yield name, unit, (amount - less) / (seconds - sooner) / 1e6
    yield from much.disk
    yield "memory, a worker", "MB", much.base / 1e6


@dataclass(frozen=True)
class Spent:
    """What runs of all steps took.

    Attributes:
        costs: (step, unit of its rate) -> amount of work and processor seconds.
        disk: what lies on disk: name, unit, value.
        base: bytes that a worker holds before its first task.
    """

    costs: dict[tuple[str, str], tuple[float, float]]
    disk: list[tuple[str, str, float]]
    base: int


def spent(recipe: dict[str, Any], folder: Path, mended: float) -> Spent:
    """Run a recipe, and parts of it again with other settings; with ftfy, of ``mended`` bytes only."""
    shutil.rmtree(folder, ignore_errors=True)
    made = make(recipe, folder, None)
    meter, costs = made.meter, {}
    text = size_of(made)
    for kind in ("documents", "measures", "contamination", "tokens"):
        costs[f"step, {kind}", "MB/s"] = text, meter.of(kind)
    costs["step, signatures", "MB/s"] = text, meter.of("signatures")
    tokens = {name: pipelines.sequence_tokens(made.artifact(f"sequence-{name}")) for name in ("plain", "fim")}
    costs["step, sequence", "M tokens/s"] = tokens["plain"], meter.of("sequence-plain")
    again = meter.of("sequence-fim") - meter.of("sequence-plain") * tokens["fim"] / tokens["plain"]
    costs["step, rearranged", "M tokens/s"] = tokens["fim"], again
    lies = [*disk(made, text)]
    near = {"deduplicate": {"exact": True, "near": {"verify": True}}}
    verified = make(recipe | near, folder, "verdicts")
    members = verified.artifact("duplicates").manifest.counts["member_bytes"]
    costs["step, verify", "MB/s"] = members, verified.meter.of("verdicts") - meter.of("verdicts")
    near = {"deduplicate": {"exact": True, "near": {"signature": "datasketch"}}}
    exact = make(recipe | near, folder, "signatures")
    costs["step, signatures, datasketch", "MB/s"] = text, exact.meter.of("signatures")
    shutil.rmtree(folder)
    slow = make(limited(recipe, mended) | {"documents": {"normalise": "ftfy"}}, folder, "documents")
    costs["step, documents, ftfy", "MB/s"] = size_of(slow), slow.meter.of("documents")
    return Spent(costs, lies, meter.base)


def limited(recipe: dict[str, Any], text: float) -> dict[str, Any]:
    """The recipe over so many bytes of text, of all sources together."""
    most = round(text / len(recipe["sources"]))
    return recipe | {"sources": {name: {**source, "limit": most} for name, source in recipe["sources"].items()}}


def size_of(made: Made) -> int:
    """Bytes of text that a run read."""
    return sum(counts["bytes"] for counts in made.artifact("documents").manifest.counts.values())


def disk(made: Made, text: int) -> Iterator[tuple[str, str, float]]:
    """What artifacts take, in bytes a byte of text, a document, or a token."""
    rows = made.artifact("documents").rows
    yield "disk, documents", "bytes a byte of text", made.artifact("documents").bytes / text
    for kind in ("measures", "signatures", "duplicates", "contamination", "verdicts"):
        yield f"disk, {kind}", "bytes a document", made.artifact(kind).bytes / rows
    sequence = made.artifact("sequence-plain")
    tokens = pipelines.sequence_tokens(sequence)
    width = 2 if sequence.manifest.extra["dtype"] == "uint16" else 4
    yield "disk, segments", "bytes a row", sequence.bytes / sequence.rows - width * (1 + tokens / sequence.rows)
