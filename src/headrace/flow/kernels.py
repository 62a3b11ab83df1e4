"""Decorators that compile hot kernels; :mod:`headrace.flow.kernel_cache` caches them."""

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
    """Compile a small kernel into each of its callers, where the types are known."""
    return _compiled(function, inline="always")


def borrowing(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel that creates no arrays and only borrows those it is given.

    Numba counts references to arrays, even where a kernel only takes one from a tuple or slices it, with two atomic
    instructions each time: half the time of merging a word. A kernel whose callers hold the arrays needs none of this.
    Whatever it calls must be compiled the same way.
    """
    return _compiled(function, _nrt=False)


_made: list[Any] = []


def _nothing() -> None:
    """Nothing."""


def load_compiled() -> None:
    """Load every imported kernel from the cache, so that processes forked from this one share them."""
    for dispatcher in _made:
        for signature in dispatcher._cache.signatures(dispatcher.targetctx.codegen()):
            dispatcher.compile(signature)


def _compiled(function: Callable[P, R], **options: Any) -> Callable[P, R]:
    dispatcher = numba.njit(nogil=True, **options)(function)
    if isinstance(dispatcher, Dispatcher):  # not with NUMBA_DISABLE_JIT=1
        dispatcher._cache = KernelCache(dispatcher)  # type: ignore[attr-defined]
        # Numba would first import what other packages add to it (awkward: 0.3 s), which only compiling may need.
        dispatcher._compilation_chain_init_hook = _nothing  # type: ignore[attr-defined]
        _made.append(dispatcher)
    return dispatcher
