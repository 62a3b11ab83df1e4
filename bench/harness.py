"""What the benchmarks share: alternate timing, results, sharing work between cores."""

from __future__ import annotations

import importlib.metadata
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

# A side that is done sooner is repeated until this much time has passed: shorter spans measure the clock and the cache.
LEAST_SECONDS = 0.3

LESS_IS_BETTER = ("s", "ms", "GB", "% of the time")

OURS = ("headrace", "numba", "numpy", "pyarrow")


class DisagreementError(AssertionError):
    """Ours and the peer gave different results: the figures would mean nothing."""


@dataclass(frozen=True)
class Setting:
    """How a benchmark is to run.

    Attributes:
        cores: processors that this process may use; 1 is pinned to one.
        rounds: times that ours and the peer are measured, in turn.
        mb: millions of bytes of text.
        corpus: folder of .jsonl.zst files.
        work: folder for what the benchmark writes; kept between benchmarks of one suite.
    """

    cores: int
    rounds: int
    mb: float
    corpus: Path
    work: Path


@dataclass(frozen=True)
class Result:
    """A row of the table.

    Attributes:
        name: the benchmark, and the case within it.
        peer: the other side; None where there is none to compare with.
        ours, theirs: medians, in ``unit``.
        unit: a rate (more is better), or one of :data:`LESS_IS_BETTER`.
        ratio: how many times better ours is, as ``{"median", "min", "max"}`` of the rounds.
        target: the figure to reach.
        target_of: what the target is a figure of: ``ratio`` or ``ours``.
        cores: processors in use.
        versions: of headrace, the peer, and what ours stands on.
        note: anything a reader must know, such as why a peer is unavailable.
    """

    name: str
    peer: str | None
    ours: float | None
    theirs: float | None
    unit: str
    ratio: dict[str, float] | None
    target: float | None
    target_of: str
    cores: int
    versions: dict[str, str]
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without target or figure."""
        value = (self.ratio["median"] if self.ratio else None) if self.target_of == "ratio" else self.ours
        if self.target is None or value is None:
            return None
        return value <= self.target if self.target_of == "ours" and less_is_better(self.unit) else value >= self.target

    def to_json(self) -> dict[str, Any]:
        """The row as it is written, ``met`` included."""
        return {**asdict(self), "met": self.met}


def less_is_better(unit: str) -> bool:
    """Whether a unit is a time or another cost."""
    return unit in LESS_IS_BETTER


def versions(peer: str | None) -> dict[str, str]:
    """Versions of Python, of ours and of the peer's package (the peer's name up to the first space)."""
    found = {"python": platform.python_version()}
    for package in (*OURS, *([peer.split(" ")[0].rstrip(",")] if peer else [])):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        run: does the work once and returns what it found.
        amount: how much work that is, in the unit of the rate (1 where the unit is a time).
        prepare: called before each run, outside the time: empties caches that would remember the last run.
    """

    run: Callable[[], Any]
    amount: float
    prepare: Callable[[], Any] | None = None

    def seconds(self) -> float:
        """The wall time of one run, the mean of several if one is short."""
        spent, times = 0.0, 0
        while spent < LEAST_SECONDS:
            if self.prepare is not None:
                self.prepare()
            start = time.perf_counter()
            self.run()
            spent += time.perf_counter() - start
            times += 1
        return spent / times


def figure(seconds: float, amount: float, unit: str) -> float:
    """Seconds as a figure in a unit."""
    if unit == "ms":
        return seconds / amount * 1e3
    return seconds / amount if unit == "s" else amount / seconds


def compare(
    setting: Setting,
    name: str,
    peer: str | None,
    unit: str,
    ours: Side,
    theirs: Side | None,
    target: float | None = None,
    target_of: str = "ratio",
    agree: Callable[[Any, Any], None] | None = None,
    note: str = "",
) -> Result:
    """Measure two sides in turn, the first of them changing with each round.

    Args:
        agree: is given what ours and theirs found in an unmeasured first run; raises :class:`DisagreementError`.

    Raises:
        DisagreementError: the sides found different things.
    """
    sides = [side for side in (ours, theirs) if side is not None]
    found = first_runs(sides)
    if agree is not None:
        agree(*found)
    taken = in_turn(setting, sides, unit)
    return result(setting, name, peer, unit, taken[0], taken[1] if theirs else None, target, target_of, note)


def first_runs(sides: list[Side]) -> list[Any]:
    """What each side finds in a run that is not measured: it compiles kernels and fills caches."""
    found = []
    for side in sides:
        if side.prepare is not None:
            side.prepare()
        found.append(side.run())
    return found


def in_turn(setting: Setting, sides: list[Side], unit: str) -> list[list[float]]:
    """The figures of each side, round by round; the order of the sides changes with each round."""
    taken: list[list[float]] = [[] for _ in sides]
    for turn in range(setting.rounds):
        for i in sorted(range(len(sides)), reverse=turn % 2 == 1):
            taken[i].append(figure(sides[i].seconds(), sides[i].amount, unit))
    return taken


def result(
    setting: Setting,
    name: str,
    peer: str | None,
    unit: str,
    ours: list[float],
    theirs: list[float] | None,
    target: float | None = None,
    target_of: str = "ratio",
    note: str = "",
) -> Result:
    """A row from the figures of each round."""
    ratio = None
    if theirs:
        ratios = [b / a if less_is_better(unit) else a / b for a, b in zip(ours, theirs, strict=True)]
        ratio = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
    return Result(
        name,
        peer,
        statistics.median(ours),
        statistics.median(theirs) if theirs else None,
        unit,
        ratio,
        target,
        target_of,
        setting.cores,
        versions(peer),
        note,
    )


def require(equal: bool, what: str) -> None:
    """Raise :class:`DisagreementError` unless ``equal``."""
    if not equal:
        raise DisagreementError(what)


def _serve(pipe: Connection, part: int, task: Callable[[int], Any], prepare: Callable[[], Any] | None) -> None:
    while (order := pipe.recv()) is not None:
        if order == "run":
            pipe.send(task(part))
        else:
            pipe.send(prepare() and None if prepare is not None else None)


class Crew:
    """Does ``task(0) .. task(cores - 1)`` side by side: on one core here, else in forked processes of one each.

    Args:
        setting: says how many.
        task: the work of one; what it returns is sent back, so it should be small.
        prepare: what each does before a run, outside the time.
    """

    def __init__(self, setting: Setting, task: Callable[[int], Any], prepare: Callable[[], Any] | None = None) -> None:
        self.task, self.before = task, prepare
        self.pipes: list[Connection] = []
        self.processes: list[Any] = []
        fork = multiprocessing.get_context("fork")  # a forked process has the texts and the kernels already
        for part in range(setting.cores if setting.cores > 1 else 0):
            here, there = fork.Pipe()
            process = fork.Process(target=_serve, args=(there, part, task, prepare), daemon=True)
            process.start()
            self.pipes.append(here)
            self.processes.append(process)

    def _all(self, order: str) -> list[Any]:
        for pipe in self.pipes:
            pipe.send(order)
        return [pipe.recv() for pipe in self.pipes]

    def run(self) -> list[Any]:
        """Do the work."""
        return self._all("run") if self.pipes else [self.task(0)]

    def prepare(self) -> None:
        """Get ready for a run."""
        if self.pipes:
            self._all("prepare")
        elif self.before is not None:
            self.before()

    def side(self, amount: float) -> Side:
        """This work as a side of a comparison."""
        return Side(self.run, amount, self.prepare)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *error: object) -> None:
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            pipe.send(None)
            process.join()


def parts(items: list[Any], cores: int) -> list[list[Any]]:
    """Items dealt out in turn, so that each core gets the same mixture."""
    return [items[i::cores] for i in range(cores)]


def sample(texts: list[str], mb: float) -> list[str]:
    """Every n-th text, so that about ``mb`` million bytes of all kinds remain: for peers too slow for the whole."""
    total = megabytes(texts)
    step = max(1, round(total / mb)) if mb > 0 else 1
    return texts[::step]


def megabytes(texts: list[str]) -> float:
    """The UTF-8 size of texts, in millions of bytes."""
    return sum(len(text.encode()) for text in texts) / 1e6
