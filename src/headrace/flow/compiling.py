"""Detect that Numba is compiling a kernel, so that a first run can say what it is waiting for."""

from __future__ import annotations

import time
from collections.abc import Callable

from numba.core.event import Event, Listener, register


class CompileWatch(Listener):
    """Sums the time spent compiling.

    Attributes:
        seconds: time spent since the last :meth:`take`.

    Args:
        began: called when compilation of an uncached kernel begins.
    """

    def __init__(self, began: Callable[[], None]) -> None:
        self.seconds = 0.0
        self._began, self._depth, self._start = began, 0, 0.0
        register("numba:compile", self)

    def on_start(self, event: Event) -> None:
        """Compilation begins; a kernel compiled into another is part of that one's time."""
        if self._depth == 0:
            self._start = time.monotonic()
            self._began()
        self._depth += 1

    def on_end(self, event: Event) -> None:
        """Compilation ends."""
        self._depth -= 1
        if self._depth == 0:
            self.seconds += time.monotonic() - self._start

    def take(self) -> float:
        """The seconds since the last call."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds
