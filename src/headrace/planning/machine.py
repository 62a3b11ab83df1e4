"""The basis of time and memory estimates: cores, their speed in training, and the memory of workers."""

from __future__ import annotations

import time
from dataclasses import dataclass

from headrace.environment import cores

# What any artifact takes, however small: small ones of a run took 0.05 to 0.17 s of processor time on one core.
START = 0.1
# The throughput of N cores relative to N times one core: an assumption. It is the project's target for two workers (at
# least 1.8 times one); the "scaling" rows of bench/results.json are measurements with two, and more have not been
# measured.
EFFICIENCY = 0.9
# Training reaches about this share of the speed of a large float32 matrix product.
UTILISATION = 0.5


@dataclass(frozen=True)
class Machine:
    """The basis of time estimates.

    Attributes:
        cores: cores doing the work.
        flops: floating-point operations per second that training reaches on them.
    """

    cores: int
    flops: float

    @staticmethod
    def here(workers: int | None = None) -> Machine:
        """This machine: its number of cores, and its speed measured with a matrix product (a few hundredths of a
        second).

        Args:
            workers: pretend it has this many of its cores.
        """
        own = cores()
        wanted = workers or own
        return Machine(wanted, UTILISATION * _measure() * wanted / own)


def _measure() -> float:
    """Floating-point operations per second of a float32 matrix product on all cores, the best of 20."""
    import numpy as np

    n = 512
    a = np.full((n, n), 0.5, dtype=np.float32)
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best
