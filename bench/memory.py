"""What this process and its children hold in memory while something is measured."""

from __future__ import annotations

import threading

import psutil


class Memory(threading.Thread):
    """Samples the resident memory of this process and its children."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.rss = self.pss = 0
        self.by_phase: dict[str, int] = {}
        self.phase = ""
        self._done = threading.Event()

    def run(self) -> None:
        me, turn = psutil.Process(), 0
        while not self._done.wait(0.05):
            rss = pss = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    rss += process.memory_info().rss
                    pss += process.memory_full_info().pss if turn % 20 == 0 else 0
                except psutil.NoSuchProcess:
                    continue
            turn += 1
            self.rss, self.pss = max(self.rss, rss), max(self.pss, pss)
            self.by_phase[self.phase] = max(self.by_phase.get(self.phase, 0), rss)

    def stop(self) -> None:
        self._done.set()
        self.join()
