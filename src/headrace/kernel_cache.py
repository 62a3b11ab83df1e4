"""Where compiled kernels are kept: one folder for each state of the sources.

Numba looks only at the file of the kernel itself to tell whether a cached one is out of date. A kernel has others
compiled into it, often from other files, so after an update of headrace it could go on computing what the old ones
did. A folder named by all sources makes that impossible, and need not be inside the installation.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

# Folders not used for so long are removed; any other may belong to a process that runs now.
KEPT_SECONDS = 30 * 86_400


def sources_state() -> str:
    """16 hexadecimal digits that change with any source file: from names, sizes and times of change."""
    import hashlib

    root, seen = Path(__file__).parent, []
    for folder, _, names in os.walk(root):
        for name in names:
            if name.endswith(".py"):
                stat = os.stat(os.path.join(folder, name))
                seen.append(f"{os.path.relpath(folder, root)}/{name} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(sorted(seen)).encode()).hexdigest()[:16]


def place() -> Path:
    """The folder of this state of the sources, in the user's cache."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "headrace" / "kernels" / sources_state()


def use() -> None:
    """Have Numba keep its cache there, unless the environment names another place or the user's cache is closed."""
    if "NUMBA_CACHE_DIR" in os.environ:
        return
    folder = place()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        for other in folder.parent.iterdir():
            if other.stat().st_mtime < time.time() - KEPT_SECONDS:
                shutil.rmtree(other, ignore_errors=True)
    except OSError:
        return  # Numba then looks for a place of its own
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
    if "numba" in sys.modules:  # imported before headrace, it has read the environment already
        sys.modules["numba"].config.CACHE_DIR = str(folder)
