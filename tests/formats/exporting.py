"""Exports that are killed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headrace.export import requested, write
from headrace.flow.events import Event


def kill_until_done(asked: Path, out: Path, first: int, every: int) -> int:
    """Export with two workers, killed after ever more events until it comes to its end; how often it was."""
    killed = 0
    for events in range(first, 200, every):
        if not killed_after(events, asked, out):
            break
        killed += 1
    return killed


def killed_after(events: int, asked: Path, out: Path) -> bool:
    """Export in a forked process that is killed after so many events; False if it ends before."""
    left = events

    def listen(event: Event) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return killed(lambda: write(requested(json.loads(asked.read_text())), out, 2, listener=listen))


def killed_at(renames: int, work: Callable[[], object]) -> bool:
    """Do work in a forked process that is killed when it is about to publish so many files; False if it ends before."""
    left, replace = renames, os.replace

    def counted(source: Any, target: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    def counting() -> None:
        os.replace = counted
        work()

    return killed(counting)


def killed(work: Callable[[], object]) -> bool:
    """Do work in a forked process that may kill itself; whether it did."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status != 0


def contents(folder: Path) -> dict[str, bytes]:
    """The files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
