"""`metrics.jsonl`: one line a step, cut back to the checkpoint when a run goes on from it."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import orjson

from headrace.flow.storage import replacing

FILE = "metrics.jsonl"
TIMES = ("seconds", "tokens_per_second", "data_wait")
"""Fields that tell of the machine and not of the model: they stay beside the checkpoints and out of the artifact, whose
bytes are the same in every run."""


class Metrics:
    """The log of a stage under way, in the folder of its checkpoints.

    Args:
        folder: of the stage.
        start: steps that are done: later lines of an interrupted run are dropped, for these steps come again.
    """

    def __init__(self, folder: Path, start: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE
        kept = [line for line in read(self.path) if line["step"] <= start] if start else []
        with replacing(self.path) as temporary:
            temporary.write_bytes(b"".join(_line(line) for line in kept))
        self._file: BinaryIO = open(self.path, "ab")  # noqa: SIM115 (held open by the context manager)

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, values: dict[str, Any], times: dict[str, float]) -> None:
        """Append a step and let readers see it at once."""
        self._file.write(_line({**values, **times}))
        self._file.flush()


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; what a kill left of the last one is ignored."""
    if not path.exists():
        return []
    return [orjson.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def publish(source: Path, target: Path) -> list[dict[str, Any]]:
    """Copy the lines without :data:`TIMES`; returns them."""
    lines = [{key: value for key, value in line.items() if key not in TIMES} for line in read(source)]
    target.write_bytes(b"".join(_line(line) for line in lines))
    return lines


def _line(values: dict[str, Any]) -> bytes:
    return orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE)
