"""The log of a stage's training as columns, read on as it grows."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import orjson

from headrace.train.metrics import is_step

FIELDS = ("tokens", "loss", "learning_rate", "grad_norm", "tokens_per_second", "seconds", "data_wait", "memory")
PIECE = 4 << 20  # bytes of the log read at a time
TAIL = 200  # bytes of its last line that are compared: they hold its step and loss


@dataclass(frozen=True)
class Curves:
    """Logged steps, in order.

    Attributes:
        step: int64[n], from 1.
        values: name -> float64[n], NaN where it was not measured.
        by_source: source -> float64[n], losses.
        skipped: step -> why it changed no weights.
    """

    step: np.ndarray
    values: dict[str, np.ndarray]
    by_source: dict[str, np.ndarray]
    skipped: dict[int, str]

    def between(self, first: int, last: int) -> Curves:
        """The steps from ``first`` to ``last``."""
        part = slice(int(np.searchsorted(self.step, first)), int(np.searchsorted(self.step, last, side="right")))
        return Curves(
            self.step[part],
            {name: column[part] for name, column in self.values.items()},
            {name: column[part] for name, column in self.by_source.items()},
            {step: why for step, why in self.skipped.items() if first <= step <= last},
        )


@dataclass
class _Log:
    """What was read of a log so far."""

    file: tuple[int, int] | None = None
    end: int = 0
    tail: bytes = b""
    step: list[int] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in FIELDS})
    sources: dict[str, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))
    skipped: dict[int, str] = field(default_factory=dict)
    made: Curves | None = None


class CurveReader:
    """Reads logs (:data:`headrace.train.metrics.FILE`), each byte once."""

    def __init__(self) -> None:
        self._logs: dict[Path, _Log] = {}
        self._lock = threading.Lock()

    def read(self, path: Path) -> Curves:
        """All that is logged by now; nothing if there is no log."""
        with self._lock:
            try:
                with open(path, "rb") as file:
                    return self._read(path, file)
            except FileNotFoundError:
                self._logs.pop(path, None)
                return _made(_Log())

    def _read(self, path: Path, file: BinaryIO) -> Curves:
        found = os.fstat(file.fileno())
        log = self._logs.setdefault(path, _Log())
        # A resumed training cuts its log back to its checkpoint: what was read then is not there any more.
        same = log.file == (found.st_dev, found.st_ino) and found.st_size >= log.end
        if not same or _at(file, log.end - len(log.tail), len(log.tail)) != log.tail:
            log = self._logs[path] = _Log((found.st_dev, found.st_ino))
        if log.made is None or found.st_size > log.end:
            file.seek(log.end)
            rest = b""
            while piece := file.read(PIECE):
                lines = (rest + piece).split(b"\n")
                rest = lines.pop()
                log.end += sum(map(len, lines)) + len(lines)
                log.tail = lines[-1][-TAIL:] + b"\n" if lines else log.tail
                for line in lines:
                    _add(log, line)
            log.made = _made(log)
        return log.made


def _at(file: BinaryIO, start: int, length: int) -> bytes:
    file.seek(start)
    return file.read(length)


def _add(log: _Log, line: bytes) -> None:
    try:
        told = orjson.loads(line)
    except orjson.JSONDecodeError:
        return  # truncated or damaged
    if not is_step(told):
        return
    step = int(told["step"])
    if log.step and step <= log.step[-1]:  # rolled back: the later one counts
        _cut(log, step)
    log.step.append(step)
    for name, column in log.values.items():
        column.append(_number(told.get(name)))
    for name, one in (told.get("sources") or {}).items():
        log.sources[name].append((step, _number(one.get("loss"))))
    if told.get("skipped") is not None:
        log.skipped[step] = str(told["skipped"])


def _cut(log: _Log, step: int) -> None:
    keep = int(np.searchsorted(np.array(log.step), step))
    del log.step[keep:]
    for column in log.values.values():
        del column[keep:]
    for pairs in log.sources.values():
        while pairs and pairs[-1][0] >= step:
            pairs.pop()
    for one in [one for one in log.skipped if one >= step]:
        del log.skipped[one]


def _made(log: _Log) -> Curves:
    step = np.array(log.step, dtype=np.int64)
    by_source = {}
    for name, pairs in log.sources.items():
        column = by_source[name] = np.full(len(step), np.nan)
        if pairs:
            at, losses = zip(*pairs, strict=True)
            column[np.searchsorted(step, at)] = losses
    values = {name: np.array(column, dtype=np.float64) for name, column in log.values.items()}
    return Curves(step, values, by_source, dict(log.skipped))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else np.nan
