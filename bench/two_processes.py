"""What the machine itself gives two processes against one, without headrace: the most that two workers can reach.

Each row is one kind of work done once by one process and once in halves by two at the same time.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numba
import numpy as np

from bench.harness import Result, Setting, result

BLOCK = 64 << 20
PAGE = mmap.PAGESIZE


@numba.njit
def _mixed(rounds: int) -> int:
    state = np.uint64(88172645463325252)
    for _ in range(rounds):
        state ^= state << np.uint64(13)
        state ^= state >> np.uint64(7)
        state ^= state << np.uint64(17)
    return int(state)


def arithmetic(share: float, folder: Path) -> None:
    """Xorshift steps, which stay in registers."""
    _mixed(int(1e9 * share))


def copying(share: float, folder: Path) -> None:
    """Copies of 64 MB, which come from memory and go there."""
    a, b = np.ones(BLOCK, np.uint8), np.empty(BLOCK, np.uint8)
    for _ in range(int(256 * share)):
        b[:] = a


def new_pages(share: float, folder: Path) -> None:
    """First writes to memory that the process has just been given."""
    for _ in range(int(32 * share)):
        with mmap.mmap(-1, BLOCK) as memory:
            view = np.frombuffer(memory, np.uint8)
            view[::PAGE] = 1
            del view


def writing(share: float, folder: Path) -> None:
    """Files of 64 MB, synced, as tasks write them."""
    block = np.ones(BLOCK, np.uint8)
    for _ in range(int(32 * share)):
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(block)
            os.fsync(file.fileno())


def _serve(pipe: Connection, work: Callable[[float, Path], None], folder: Path) -> None:
    work(1 / 32, folder)  # compiles, and has its memory
    while (share := pipe.recv()) is not None:
        work(share, folder)
        pipe.send(None)


def run(setting: Setting) -> Iterator[Result]:
    """A row for each kind of work."""
    if len(os.sched_getaffinity(0)) < 2:
        return
    fork = multiprocessing.get_context("fork")
    for work in (arithmetic, copying, new_pages, writing):
        pipes = []
        for _ in range(2):
            here, there = fork.Pipe()
            fork.Process(target=_serve, args=(there, work, setting.work), daemon=True).start()
            pipes.append(here)
        taken: dict[int, list[float]] = {1: [], 2: []}
        for turn in range(setting.rounds + 1):
            for count in (1, 2):
                start = time.perf_counter()
                for pipe in pipes[:count]:
                    pipe.send(1 / count)
                for pipe in pipes[:count]:
                    pipe.recv()
                if turn:
                    taken[count].append(time.perf_counter() - start)
        for pipe in pipes:
            pipe.send(None)
        name = f"two processes, {work.__name__.replace('_', ' ')}"
        yield result(replace(setting, cores=2), name, "itself in one process", "s", taken[2], taken[1])
