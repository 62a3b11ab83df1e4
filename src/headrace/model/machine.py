"""What a model needs from the machine: a device, the cores, its cache, and the C library's allocator."""

from __future__ import annotations

import ctypes
import math
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h

# Numbers in float32 that a CPU works on at a time where several operations follow each other: 1 MB of a second-level
# cache of 2 MB. The statistics of 4,096 x 8,192 logits take 73 ms on one core with 2 ** 18 or 2 ** 19, 87 with 2 ** 20.
CACHED = 1 << 18


def prepare() -> None:
    """Make this process ready to compute: call before torch is first imported in it."""
    set_environment()
    use_all_cores()
    keep_memory()


def device() -> torch.device:
    """The accelerator if there is one, otherwise the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def set_environment() -> None:
    """Tell libraries that torch loads what suits training. Must be called before torch is first imported.

    Let OpenMP's threads sleep rather than spin while they wait for each other. Sleeping costs a fifth on quiet cores
    (10.5 k tokens/s versus 13.2 k). But if other processes want the cores too, a spinning thread blocks the one it
    waits for: next to two other trainings on two cores, 3.6 k versus 1.7 k.

    Let oneDNN keep fewer compiled products than its 1,024. It compiles one for each shape, and products within
    documents have new shapes all the time: 31 batches of 4 x 512 took 1,235 MB, and 855 MB with 128, in no more time.
    A step's own shapes are some 40.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")


def use_all_cores() -> None:
    """Let torch use every core available to this process.

    Always all of them, whatever the number of workers: sums are split over threads, so another number of threads rounds
    differently, and the model's bytes must not depend on the number of workers.
    """
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def keep_memory() -> None:
    """Let glibc keep freed blocks for the next step instead of returning them to the system.

    Each step allocates and frees the same activations. Workers start with thresholds that return blocks at once, which
    costs a page fault for every 4 kB of every tensor: 7.0 k tokens/s instead of 14.6 k (5.3 M parameters, two cores).
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
            libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def slices(count: int, most: int) -> list[slice]:
    """``count`` items in as few slices of at most ``most`` (at least 1) as possible, about equally long."""
    if count == 0:
        return []
    size = math.ceil(count / math.ceil(count / max(1, most)))
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
