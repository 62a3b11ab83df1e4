"""`metrics.jsonl`, one line per step, and `evaluations.jsonl`, what was measured in between."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from headrace.train.appended import LINES, Appended
from headrace.train.observers import Observer

FILE = "metrics.jsonl"
EVALUATIONS = "evaluations.jsonl"
LONGEST = 1 << 16  # bytes of a line, about: those about fifty sources have 6 kB
TIMES = ("seconds", "tokens_per_second", "data_wait", "memory", "mfu", "peak_flops")
"""Fields about the machine rather than the model: they are kept next to the checkpoints but not in the artifact, whose
bytes are the same in every run."""


class Metrics(Observer):
    """The logs of a stage being trained, in its trajectory's folder.

    Args:
        folder: the folder.
        lengths: bytes of each file to continue after, by name, from :attr:`lengths`; what follows is cut off, because
            those steps run again.
    """

    def __init__(self, folder: Path, lengths: dict[str, int]) -> None:
        self._files = Appended(folder, {FILE: LINES, EVALUATIONS: LINES}, lengths)
        self.lengths = self._files.lengths

    def add(self, values: dict[str, Any], times: dict[str, float]) -> None:
        """Append a step and make it visible to readers at once."""
        self._files.add(FILE, _line({**values, **times}))

    def evaluated(self, values: dict[str, Any]) -> None:
        """Append what was measured after a step."""
        self._files.add(EVALUATIONS, _line(values))

    def close(self) -> None:
        """Close the files."""
        self._files.close()


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of such a file; truncated or invalid lines are skipped."""
    return _parsed(path.read_bytes().splitlines() if path.exists() else ())


def last(path: Path) -> dict[str, Any] | None:
    """The last whole line of such a file, without reading the rest; None if there is none."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            back = min(size, LONGEST)
            while True:
                file.seek(size - back)
                lines = _parsed(file.read(back).splitlines()[1 if back < size else 0 :])
                if lines or back == size:
                    return lines[-1] if lines else None
                back = min(size, 2 * back)
    except FileNotFoundError:
        return None


def between(path: Path, first: int, last: int) -> list[dict[str, Any]]:
    """The lines about steps ``first`` to ``last``. Looks for the first by halving, since a long log takes seconds."""
    found: list[dict[str, Any]] = []
    try:
        with open(path, "rb") as file:
            low, high = 0, file.seek(0, os.SEEK_END)
            while high - low > LONGEST:
                middle = (low + high) // 2
                line = _after(file, middle)
                if line is not None and line["step"] < first:
                    low = middle
                else:
                    high = middle
            file.seek(low)
            if low:
                file.readline()
            for data in file:
                for line in _parsed([data]):
                    if line["step"] > last:
                        return found
                    if line["step"] >= first:
                        found.append(line)
    except FileNotFoundError:
        pass
    return found


def _after(file: BinaryIO, place: int) -> dict[str, Any] | None:
    """The first line that begins after a place; None if there is none, or it is broken off."""
    file.seek(place)
    file.readline()
    found = _parsed([file.readline()])
    return found[0] if found else None


def _parsed(lines: Iterable[bytes]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for data in lines:
        with suppress(orjson.JSONDecodeError):
            line = orjson.loads(data)
            if is_step(line):
                found.append(line)
    return found


def is_step(line: Any) -> bool:
    """Whether a line says what a step's does: others may stand in a log that was damaged."""
    if not isinstance(line, dict):
        return False
    sources = line.get("sources", {})
    told = isinstance(sources, dict) and all(isinstance(one, dict) for one in sources.values())
    loss = "loss" in line and isinstance(line["loss"], int | float | None)
    return told and loss and type(line.get("step")) is int


def publish(source: Path, target: Path) -> list[dict[str, Any]]:
    """Copy the lines without :data:`TIMES`; returns them."""
    lines = [{key: value for key, value in line.items() if key not in TIMES} for line in read(source)]
    target.write_bytes(b"".join(_line(line) for line in lines))
    return lines


def _line(values: dict[str, Any]) -> bytes:
    return orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE)
