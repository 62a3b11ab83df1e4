"""A log of results that a kill may cut short: lines of JSON, one for each of some things to do, in their order."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from headrace.errors import UserError


class Log:
    """What is done of some things to do; what follows the last whole line is dropped.

    Args:
        path: the file; it need not exist.
        wanted: what lines must say, in their order, such as ``{"task_id": "HumanEval/0", "sample": 0}``; a line says
            more than that.

    Attributes:
        lines: what is there.

    Raises:
        UserError: lines are of something else.
    """

    def __init__(self, path: Path, wanted: Sequence[Mapping[str, Any]]) -> None:
        self.path, self.lines = path, list[Any]()
        if not path.exists():
            return
        told = path.read_bytes()
        try:
            self.lines = [orjson.loads(line) for line in told[: told.rfind(b"\n") + 1].splitlines()]
            whole = len(self.lines) <= len(wanted) and all(
                {name: line[name] for name in about} == about for line, about in zip(self.lines, wanted, strict=False)
            )
        except (ValueError, TypeError, KeyError):
            whole = False
        if not whole:
            raise UserError(
                "These results have been changed.", str(path), "Delete the file, and run the command again."
            )
        self.cut(len(self.lines))

    def cut(self, count: int) -> None:
        """Keep the first lines."""
        del self.lines[count:]
        if self.path.exists():
            with open(self.path, "rb+") as file:
                size = sum(len(file.readline()) for _ in range(count))
                file.truncate(size)

    def append(self, lines: Sequence[Any]) -> None:
        """Write lines, at once and to the disk."""
        with open(self.path, "ab") as file:
            file.write(b"".join(orjson.dumps(line) + b"\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
        self.lines += lines
