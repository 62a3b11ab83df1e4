"""Row keys sorted under a budget: what puts the rows of a sequence into their order, at any size.

Each row number has a key, the keyed hash that orders a sequence's rows; (key, row) records of 16 bytes go through the
external sort. What comes out is checked record by record: ascending, each key that of its row, and every row there once
(their number, sum and exclusive or).
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.memory import Memory
from headrace.flow.external_sort import ExternalSort
from headrace.flow.keys import keyed, salt

KEY = np.dtype([("key", "<u8"), ("row", "<u8")])
PIECE = 1 << 20


def measure_sort(folder: Path, rows: int, memory: int) -> dict[str, Any]:
    """Sort the keys of ``rows`` rows; seconds of both halves, keys a second, and the peak of resident memory.

    Raises:
        SystemExit: what comes out is not what went in, in order.
    """
    sampler, seed = Memory(), salt(1, "order", "bench", 0)
    sampler.start()
    sort, made, began, used = ExternalSort(folder, KEY, ("key",), memory), 0.0, time.monotonic(), time.process_time()
    for start in range(0, rows, PIECE):
        since = time.monotonic()
        records = np.empty(min(PIECE, rows - start), dtype=KEY)
        records["row"] = np.arange(start, start + len(records))
        records["key"] = keyed(seed, records["row"])
        made += time.monotonic() - since
        sort.add(records)
    filled, checked, last = time.monotonic(), 0.0, 0
    count, total, mixed = 0, 0, 0
    for records in sort.chunks():
        since = time.monotonic()
        keys, numbers = records["key"], records["row"]
        right = int(keys[0]) >= last and bool((keys[1:] >= keys[:-1]).all())
        if not right or not (keyed(seed, numbers) == keys).all():
            raise SystemExit(f"the keys are not in order, or not those of their rows, after {count} rows")
        last, count = int(keys[-1]), count + len(keys)
        total, mixed = total + sum_of(numbers), mixed ^ int(np.bitwise_xor.reduce(numbers))
        checked += time.monotonic() - since
    ended = time.monotonic()
    sampler.stop()
    if (count, total, mixed) != (rows, rows * (rows - 1) // 2, _xor_below(rows)):
        raise SystemExit(f"{count} rows came out of {rows}, or not each of them once")
    seconds = ended - began - made - checked
    return {
        "keys": rows,
        "memory": memory,
        "seconds": round(seconds, 2),
        "keys_per_second": round(rows / seconds),
        "filling": round(filled - began - made, 2),
        "merging": round(ended - filled - checked, 2),
        "processor_seconds": round(time.process_time() - used, 2),
        "making": round(made, 2),
        "checking": round(checked, 2),
        "peak_rss": sampler.rss,
        "load": os.getloadavg()[0],
    }


def sum_of(numbers: npt.NDArray[np.uint64]) -> int:
    """The sum, exact beyond 64 bits."""
    low, high = numbers & np.uint64(0xFFFFFFFF), numbers >> np.uint64(32)
    return int(low.sum()) + (int(high.sum()) << 32)


def _xor_below(n: int) -> int:
    """The exclusive or of 0, 1, ..., n - 1."""
    return (n - 1, 1, n, 0)[(n - 1) % 4]
