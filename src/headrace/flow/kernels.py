"""How hot kernels are compiled, and kept.

Numba lets several processes write one cache, but not safely: a new entry takes the next free number from an index
file, and two processes that compile one kernel for different types at once take the same. Whoever reads the index of
one with the code of the other runs a kernel on data of other types: a crash, or wrong numbers. The workers of a first
run compile side by side, so entries are saved here one at a time.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import numba
from numba.core.caching import IndexDataCacheFile

P = ParamSpec("P")
R = TypeVar("R")


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel when it is first called, for the types of its arguments."""
    return _compiled(function)


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a small kernel into each of those that call it, where their types are known."""
    return _compiled(function, inline="always")


def borrowing(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel that makes no arrays and only borrows those it is given.

    Numba counts the references to arrays, also where a kernel only takes one out of a tuple or a slice of it, with two
    atomic instructions each time: they were half of the time that merging a word took. A kernel whose callers keep the
    arrays needs none of it. What it calls must be of the same kind.
    """
    return _compiled(function, _nrt=False)


def _compiled(function: Callable[P, R], **options: Any) -> Callable[P, R]:
    dispatcher = numba.njit(cache=True, nogil=True, **options)(function)
    file = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if isinstance(file, IndexDataCacheFile):  # not with NUMBA_DISABLE_JIT=1
        file.__class__ = OneAtATime
    return dispatcher


class OneAtATime(IndexDataCacheFile):
    """Numba's files of one kernel, which one process at a time changes while no other reads them."""

    def save(self, key: Any, data: Any) -> None:
        """Add an entry; what others added meanwhile is in the index that this reads."""
        with self._locked(fcntl.LOCK_EX):
            super().save(key, data)

    def load(self, key: Any) -> Any:
        """The entry of a key, or None."""
        with self._locked(fcntl.LOCK_SH):
            return super().load(key)

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        try:
            handle = os.open(os.path.join(self._cache_path, ".lock"), os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:  # a folder that is not there, or that nobody here may write to
            yield
            return
        try:
            fcntl.flock(handle, how)
            yield
        finally:
            os.close(handle)
