"""`metrics.jsonl`: one line per step. A run that resumes from a checkpoint continues the copy of the log inside it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import orjson

from headrace.flow.storage import replacing

FILE = "metrics.jsonl"
TIMES = ("seconds", "tokens_per_second", "data_wait")
"""Fields about the machine rather than the model: they are kept next to the checkpoints but not in the artifact, whose
bytes are the same in every run."""


class Metrics:
    """The log of a stage being trained, in the folder of its checkpoints.

    Args:
        folder: the stage's folder.
        before: the log to continue; lines of later steps are dropped, because those steps run again.
    """

    def __init__(self, folder: Path, before: Path | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE
        with replacing(self.path) as temporary:
            temporary.write_bytes(b"" if before is None else before.read_bytes())
        self._file: BinaryIO = open(self.path, "ab")  # noqa: SIM115 (held open by the context manager)

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, values: dict[str, Any], times: dict[str, float]) -> None:
        """Append a step and make it visible to readers at once."""
        self._file.write(_line({**values, **times}))
        self._file.flush()


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
