"""The markers of a phase's finished tasks: one journal a phase, ``done/<phase>.jsonl``, which the coordinator writes.

``{"task", "result", "files", "key", "like"}`` says that a task is done: what it returned, the files it wrote
(``{"name", "rows", "bytes", "digest"}``, with ``as`` if published), and the keys under which it can be reused, if any.
``{"undone": task}`` takes that back. A task's last entry counts, and a damaged line counts as missing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from headrace.flow.journal import Journal, read_entry
from headrace.flow.storage import replacing

Marker = dict[str, Any]


class Markers:
    """A phase's markers. Only their places in the file are held, since a plan can have 100,000 tasks.

    Args:
        path: the journal.

    Attributes:
        damaged: whether there are lines that have changed since they were written. A last line that a kill cut short
            is not one.
    """

    def __init__(self, path: Path) -> None:
        self._path, self.damaged = path, False
        self._places: dict[int, tuple[int, int]] = {}  # task -> its line's first byte and length
        at = 0
        with open(path, "rb") as file:
            for line in file:
                entry = read_entry(line)
                if entry is None:
                    self.damaged |= line.endswith(b"\n")
                elif "undone" in entry:
                    self._places.pop(entry["undone"], None)
                else:
                    self._places[entry["task"]] = at, len(line)
                at += len(line)

    @property
    def tasks(self) -> set[int]:
        """The numbers of the finished tasks."""
        return set(self._places)

    def read(self, tasks: Iterable[int]) -> Iterator[Marker]:
        """The markers of some tasks, in the order asked for.

        Raises:
            KeyError: one is not done.
        """
        with open(self._path, "rb") as file:
            for task in tasks:
                at, length = self._places[task]
                entry = read_entry(os.pread(file.fileno(), length, at))
                if entry is None or entry.pop("task") != task:
                    raise KeyError(task)
                yield entry


def read_markers(path: Path) -> Markers | None:
    """The markers in a journal; None if there is none. An unchanged journal is not read twice."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return _read(path, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=8)  # a task looks at the results of a few earlier phases
def _read(path: Path, *stamp: int) -> Markers:
    return Markers(path)


def open_journal(path: Path) -> Journal:
    """A phase's journal, to be added to; it is created if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            cut_short = size > 0 and os.pread(file.fileno(), 1, size - 1) != b"\n"
    except FileNotFoundError:
        cut_short = False
    if cut_short:
        mend(path)
    return Journal(path)


def mend(path: Path) -> None:
    """Take damaged lines out of a journal."""
    with open(path, "rb") as file, replacing(path) as temporary, open(temporary, "wb") as kept:
        kept.writelines(line.rstrip(b"\n") + b"\n" for line in file if read_entry(line) is not None)
