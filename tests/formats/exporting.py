"""Exports that are killed; ``python exporting.py REQUEST OUT WORKERS EVENTS`` kills itself after so many events."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headrace.export import requested, write
from headrace.flow.events import Event


def kill_until_done(asked: Path, out: Path, first: int, every: int) -> int:
    """Export with two workers, killed after ever more events until it comes to its end; how often it was."""
    killed = 0
    for events in range(first, 200, every):
        command = [sys.executable, __file__, str(asked), str(out), "2", str(events)]
        code = subprocess.run(command, stderr=subprocess.DEVNULL).returncode
        if code == 0:
            break
        assert code == -signal.SIGKILL
        killed += 1
    return killed


def killed_at(renames: int, work: Callable[[], object]) -> bool:
    """Do work in a forked process that is killed when it is about to publish so many files; False if it ends before."""
    child = os.fork()
    if child == 0:
        left, replace = renames, os.replace

        def counted(source: Any, target: Any) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)

        os.replace = counted
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


def main() -> None:
    """Export, or die on the way."""
    request, out, workers, events = sys.argv[1:]
    left = int(events)

    def listen(event: Event) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    write(requested(json.loads(Path(request).read_text())), out, int(workers), listener=listen)


if __name__ == "__main__":
    main()
