"""`metrics.jsonl`, one line per step, and `evaluations.jsonl`, what was measured in between. A checkpoint says how long
each was, so that a resumed run continues them there."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from headrace.flow.notices import Notice
from headrace.train.observers import Observer

FILE = "metrics.jsonl"
EVALUATIONS = "evaluations.jsonl"
TIMES = ("seconds", "tokens_per_second", "data_wait", "memory", "mfu", "peak_flops")
"""Fields about the machine rather than the model: they are kept next to the checkpoints but not in the artifact, whose
bytes are the same in every run."""


class Metrics(Observer):
    """The logs of a stage being trained, in its trajectory's folder.

    Args:
        folder: the folder.
        lengths: bytes of each file to continue after, by name, from :meth:`lengths`; what follows is cut off, because
            those steps run again.
    """

    def __init__(self, folder: Path, lengths: dict[str, int]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._files: dict[str, BinaryIO] = {}
        for name in (FILE, EVALUATIONS):
            if (folder / name).exists() or lengths.get(name):
                file = self._open(name)
                size, expected = _size(file), lengths.get(name, 0)
                file.truncate(min(expected, size))
                if size < expected:
                    file.write(b"\n")  # the last line may be cut off
                    warnings.warn(
                        f"{folder / name} has {size:,} bytes, and had {expected:,} when the checkpoint was written: "
                        "lines are missing. Training is not affected.",
                        Notice,
                        stacklevel=2,
                    )

    def add(self, values: dict[str, Any], times: dict[str, float]) -> None:
        """Append a step and make it visible to readers at once."""
        self._append(FILE, {**values, **times})

    def evaluated(self, values: dict[str, Any]) -> None:
        """Append what was measured after a step."""
        self._append(EVALUATIONS, values)

    def lengths(self) -> dict[str, int]:
        """The bytes of each file so far, flushed to disk."""
        for file in self._files.values():
            os.fsync(file.fileno())
        return {name: _size(file) for name, file in self._files.items()}

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()

    def _append(self, name: str, values: dict[str, Any]) -> None:
        file = self._open(name)
        file.write(_line(values))
        file.flush()

    def _open(self, name: str) -> BinaryIO:
        if name not in self._files:
            self._files[name] = open(self._folder / name, "ab")  # noqa: SIM115 - until closed
        return self._files[name]


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of such a file; truncated or invalid lines are skipped."""
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


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size  # not its position, which stays behind the end when it is cut


def _line(values: dict[str, Any]) -> bytes:
    return orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE)
