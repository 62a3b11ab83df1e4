"""How hot kernels are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numba

P = ParamSpec("P")
R = TypeVar("R")


def borrowing(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel that makes no arrays and only borrows those it is given.

    Numba counts the references to arrays, also where a kernel only takes one out of a tuple or a slice of it, with two
    atomic instructions each time: they were half of the time that merging a word took. A kernel whose callers keep the
    arrays needs none of it. What it calls must be of the same kind.
    """
    compiled: Callable[P, R] = numba.njit(cache=True, nogil=True, _nrt=False)(function)  # type: ignore[call-overload]
    return compiled
