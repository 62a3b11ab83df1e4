"""How the server's process uses memory: what is not needed any more goes back to the system."""

from __future__ import annotations

import ctypes
import sys

# As workers have it (`headrace.flow.executors.local`): glibc keeps small blocks and returns large ones at once, and
# threads share their free memory, of which each would keep some otherwise.
_MMAP_THRESHOLD, _TRIM_THRESHOLD, _ARENA_MAX = -3, -1, -8  # of mallopt, as malloc.h has them
_SETTINGS = {_MMAP_THRESHOLD: 4 << 20, _TRIM_THRESHOLD: 8 << 20, _ARENA_MAX: 2}


def return_memory() -> None:
    """Let freed memory go back to the system; before threads are started. Arrow's own pool would keep it."""
    import pyarrow as pa

    pa.set_memory_pool(pa.system_memory_pool())
    for option, value in _SETTINGS.items():
        _call("mallopt", option, value)


def trim() -> None:
    """Give back what small blocks have left behind: glibc does so at the end of its heap only."""
    _call("malloc_trim", 0)


def _call(name: str, *arguments: int) -> None:
    function = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None  # glibc only
    if function is not None:
        function(*arguments)
