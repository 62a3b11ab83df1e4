"""A scheduler's request to stop: SIGTERM or SIGUSR1 is remembered, and training stops when its step is done."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from headrace.errors import UserError

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Interrupted(UserError):  # noqa: N818 - nothing went wrong
    """Training stopped where it was asked to; its checkpoint is on disk."""

    def __init__(self, stage: str, step: int) -> None:
        super().__init__(
            "Training stopped, as it was asked to; its checkpoint is written.",
            f"stage {stage}, step {step}",
            "Run the same command again to go on.",
        )


class Interruption:
    """While entered, the signals set a flag instead of ending the process. Outside the main thread, none is heard."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
