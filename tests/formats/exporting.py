"""An export as a program: ``python exporting.py REQUEST OUT WORKERS EVENTS`` kills itself after so many events."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

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
