"""How fast this machine is: its cores and what a core gets through, for estimates of time."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

# Bytes of text (for sequences: of tokens) that a core gets through in a second of processor time. Measured with 102 MB
# of JSON lines, and from `syntax` on with the demo's corpus, on one core of a two-core cloud machine.
RATES = {
    "documents": 60e6,
    "measures": 65e6,
    "duplicates": 75e6,
    "contamination": 40e6,
    "verdicts": 100e6,
    "syntax": 1.4e6,  # documents taken out of Python modules, which are parsed
    "tokenizer": 4.5e6,
    "tokens": 3.5e6,
    "sequence": 40e6,
    "encode": 3.5e6,  # text encoded again, rearranged or in a template
}
# A worker imports its libraries before its first task.
START = 0.8
# Training reaches about this share of the speed of a large float32 matrix product.
UTILISATION = 0.5


@dataclass(frozen=True)
class Machine:
    """What estimates of time rest on.

    Attributes:
        cores: cores this process may use.
        flops: floating-point operations a second that training reaches on them.
    """

    cores: int
    flops: float

    @staticmethod
    def here() -> Machine:
        """This machine: its cores counted, its speed measured with a matrix product (a few hundredths of a second)."""
        return Machine(cores(), UTILISATION * _measure())

    def seconds(self, kind: str, size: int) -> float:
        """Seconds to make an artifact of a kind out of ``size`` bytes."""
        return size / (RATES[kind] * self.cores)


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _measure() -> float:
    """Floating-point operations a second of a float32 matrix product on all cores, the best of 20."""
    import numpy as np

    n = 512
    a = np.full((n, n), 0.5, dtype=np.float32)
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best
