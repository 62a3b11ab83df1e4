"""`metrics.jsonl`: one line per step. A checkpoint says how long it was, so that a resumed run continues it there."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import orjson

FILE = "metrics.jsonl"
TIMES = ("seconds", "tokens_per_second", "data_wait")
"""Fields about the machine rather than the model: they are kept next to the checkpoints but not in the artifact, whose
bytes are the same in every run."""


class Metrics:
    """The log of a stage being trained, in its trajectory's folder.

    Args:
        folder: the folder.
        logged: bytes to continue after; what follows is cut off, because those steps run again.
        write: whether this process writes it.
    """

    def __init__(self, folder: Path, logged: int = 0, write: bool = True) -> None:
        self.path = folder / FILE
        self._file: BinaryIO | None = None
        if write:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "ab")  # noqa: SIM115 (held open by the context manager)
            self._file.truncate(min(logged, self.path.stat().st_size))

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, values: dict[str, Any], times: dict[str, float]) -> None:
        """Append a step and make it visible to readers at once."""
        if self._file is not None:
            self._file.write(_line({**values, **times}))
            self._file.flush()

    def position(self) -> int:
        """The bytes so far, flushed to disk."""
        if self._file is None:
            return 0
        os.fsync(self._file.fileno())
        return self._file.tell()


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; truncated or invalid lines are skipped."""
    lines: list[dict[str, Any]] = []
    for data in path.read_bytes().splitlines() if path.exists() else ():
        with suppress(orjson.JSONDecodeError):
            line = orjson.loads(data)
            if isinstance(line, dict) and {"step", "loss"} <= line.keys():
                lines.append(line)
    return lines


def publish(source: Path, target: Path) -> list[dict[str, Any]]:
    """Copy the lines without :data:`TIMES`; returns them."""
    lines = [{key: value for key, value in line.items() if key not in TIMES} for line in read(source)]
    target.write_bytes(b"".join(_line(line) for line in lines))
    return lines


def _line(values: dict[str, Any]) -> bytes:
    return orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE)


def finite(value: float | None) -> float | None:
    """The value, or None if JSON cannot represent it."""
    return value if value is not None and math.isfinite(value) else None
