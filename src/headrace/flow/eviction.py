"""A budget for what mirrors hold: the files that were not used for longest go first, and none that the store lacks."""

from __future__ import annotations

import os
import shutil
import stat
import time
from contextlib import suppress
from pathlib import Path

SHARE = 0.5  # of what is free and what mirrors hold already, where no budget is told
# A path that was just handed out may not be open yet; what is open, or mapped, outlives its name.
GRACE = 60.0
LEAST = 64 << 20  # fetched bytes after which the budget is looked at again

_fetched = 0


def budget() -> int | None:
    """The bytes that mirrors may hold: ``$HEADRACE_CACHE_BYTES``; None if it is not told."""
    told = os.environ.get("HEADRACE_CACHE_BYTES", "")
    return int(told) if told.isdigit() else None


def arrived(base: Path, size: int) -> None:
    """Make room when enough has come since the last time.

    Args:
        base: the folder of all mirrors.
        size: bytes that have just come.
    """
    global _fetched
    _fetched += size
    most = budget()
    if _fetched >= (LEAST if most is None else min(LEAST, most // 4)):
        _fetched = 0
        evict(base, most)


def evict(base: Path, most: int | None) -> None:
    """Delete fetched files, those not used for longest first, until mirrors hold no more than a budget.

    Args:
        base: the folder of all mirrors.
        most: the budget in bytes; None for a share of the disk.
    """
    held: list[tuple[float, int, str]] = []
    total = 0
    for folder, _, names in os.walk(base):
        for name in names:
            with suppress(FileNotFoundError):
                about = os.lstat(os.path.join(folder, name))
                total += about.st_size
                # Only what was pushed or fetched can be read only: :mod:`headrace.flow.mirror`.
                if stat.S_ISREG(about.st_mode) and not about.st_mode & 0o222:
                    held.append((about.st_mtime, about.st_size, os.path.join(folder, name)))
    if most is None:
        most = int((shutil.disk_usage(base).free + total) * SHARE)
    for used, size, path in sorted(held):
        if total <= most or used > time.time() - GRACE:
            return
        with suppress(FileNotFoundError):
            os.unlink(path)
            total -= size
