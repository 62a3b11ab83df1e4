"""The task specs of a phase: ``plan/<phase>.jsonl``, which is written once and read a spec at a time.

The first line is ``{"tasks"}``, their number; then comes ``{"spec"}`` of each. Lines end in a ``sum``, as in a
:mod:`headrace.flow.journal`. A worker reads its own line only: all of 100,000 specs take half a second and 100 MB.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from headrace.flow.journal import Entry, Journal, read_entry
from headrace.flow.storage import SealError, replacing

Spec = dict[str, Any]


def write_plan(path: Path, specs: list[Spec]) -> None:
    """Write a phase's specs, all or nothing."""
    with replacing(path) as temporary:
        journal = Journal(temporary)
        journal.add({"tasks": len(specs)})
        for spec in specs:
            journal.add({"spec": spec})
        journal.close()


class Plan:
    """A phase's specs. Only the places of their lines are held.

    Args:
        path: the file.

    Raises:
        SealError: it does not say how many there are, or does not hold as many.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        ends = np.flatnonzero(np.fromfile(path, dtype=np.uint8) == ord("\n"))
        self._starts = np.append(0, ends + 1)
        self.tasks = len(ends) - 1
        if self.tasks < 0 or self._entries([0]) != [{"tasks": self.tasks}]:
            raise SealError(f"{path} has changed since it was written")

    def specs(self, tasks: Iterable[int]) -> list[Spec]:
        """The specs of some tasks.

        Raises:
            SealError: one has changed since it was written.
        """
        return [dict(entry["spec"]) for entry in self._entries(task + 1 for task in tasks)]

    def _entries(self, lines: Iterable[int]) -> list[Entry]:
        found = []
        with open(self._path, "rb") as file:
            for line in lines:
                start, end = self._starts[line : line + 2].tolist()
                entry = read_entry(os.pread(file.fileno(), end - start, start))
                if entry is None:
                    raise SealError(f"{self._path} has changed since it was written")
                found.append(entry)
        return found


def read_plan(path: Path) -> Plan:
    """The specs in a file. An unchanged file is not read twice.

    Raises:
        FileNotFoundError: there is no such file.
        SealError: it has changed since it was written.
    """
    stat = path.stat()
    return _read(path, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=8)  # as for markers
def _read(path: Path, *stamp: int) -> Plan:
    return Plan(path)
