"""An export as a program: ``python exporting.py REQUEST OUT WORKERS EVENTS`` kills itself after so many events."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from headrace.export import requested, write
from headrace.flow.events import Event


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
