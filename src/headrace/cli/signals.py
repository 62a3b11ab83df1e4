"""A scheduler's request to stop."""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

ASKED = (signal.SIGTERM, signal.SIGUSR1)


def stop_when_asked() -> None:
    """Treat SIGTERM and SIGUSR1 like Ctrl-C: stop the workers and keep what is finished.

    The first counts. Schedulers repeat themselves, and another must not cut off the checkpoint being written; Ctrl-C
    does, and SIGKILL.
    """
    for number in ASKED:
        signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    for asked in ASKED:
        signal.signal(asked, signal.SIG_IGN)
    raise KeyboardInterrupt
