"""How hot kernels are compiled; :mod:`headrace.flow.kernel_cache` keeps them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numba
from numba.core.dispatcher import Dispatcher

from headrace.flow.kernel_cache import KernelCache

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


_made: list[Any] = []


def load_compiled() -> None:
    """Load what the cache holds of every kernel that has been imported, so that processes forked from here share it."""
    for dispatcher in _made:
        for signature in dispatcher._cache.signatures(dispatcher.targetctx.codegen()):
            dispatcher.compile(signature)


def _compiled(function: Callable[P, R], **options: Any) -> Callable[P, R]:
    dispatcher = numba.njit(nogil=True, **options)(function)
    if isinstance(dispatcher, Dispatcher):  # not with NUMBA_DISABLE_JIT=1
        dispatcher._cache = KernelCache(dispatcher)  # type: ignore[attr-defined]
        _made.append(dispatcher)
    return dispatcher
