"""Kernels that several processes compile at once are kept, each under its own types."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from headrace.flow.kernels import OneAtATime, borrowing, inlined, kernel

WRITERS = 4
ENTRIES = 40

SAVE = """
import sys, time
from headrace.flow.kernels import OneAtATime
folder, writer, entries, start = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
files = [OneAtATime(folder, f"kernel-{i}", "stamp") for i in range(entries)]
time.sleep(max(0, start - time.time()))
for file in files:
    file.save(f"types of {writer}", f"code of {writer}")
"""


def test_entries_saved_at_once_are_not_mixed_up(tmp_path: Path) -> None:
    """Numba's own saving loses or mixes up several of these 160 entries each time."""
    start = str(time.time() + 2.5)
    command = [sys.executable, "-c", SAVE, str(tmp_path)]
    running = [subprocess.Popen([*command, str(writer), str(ENTRIES), start]) for writer in range(WRITERS)]
    assert [process.wait() for process in running] == [0] * WRITERS
    for i in range(ENTRIES):
        file = OneAtATime(str(tmp_path), f"kernel-{i}", "stamp")
        kept = {writer: file.load(f"types of {writer}") for writer in range(WRITERS)}
        assert kept == {writer: f"code of {writer}" for writer in range(WRITERS)}


def test_kernels_of_every_kind_are_saved_so() -> None:
    for decorate in (kernel, inlined, borrowing):
        assert type(decorate(_double)._cache._cache_file) is OneAtATime


def _double(x: int) -> int:
    return 2 * x
