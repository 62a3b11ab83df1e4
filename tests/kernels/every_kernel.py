"""Runs every kernel on awkward inputs and prints what came out: ``python every_kernel.py FOLDER``.

The result is JSON: ``{"digests": {case: digest}, "unused": [kernels that were not called], "widest": bits}``. What is
unused is known only with ``NUMBA_DISABLE_JIT=1``, where a kernel is a Python function; the widest vectors only without.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import xxhash

made: set[str] = set()
called: set[str] = set()


def watched(*_: Any, **__: Any) -> Callable[[Callable], Callable]:
    """In the place of ``numba.njit``: leaves the function Python, and notes it and its calls."""

    def decorate(kernel: Callable) -> Callable:
        name = f"{kernel.__module__}.{kernel.__qualname__}"
        made.add(name)

        @functools.wraps(kernel)
        def noted(*arguments: Any) -> Any:
            called.add(name)
            return kernel(*arguments)

        return noted

    return decorate


def import_all() -> None:
    """Import every module of headrace that has kernels."""
    import headrace

    root = Path(headrace.__file__).parent
    for path in sorted(root.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "headrace.flow.kernels import" in text:
            importlib.import_module(".".join(["headrace", *path.relative_to(root).with_suffix("").parts]))


def update(state: xxhash.xxh3_128, value: Any) -> None:
    """Take in a value: arrays with shape and dtype, numbers by their worth, tuples, lists and dicts in order."""
    if isinstance(value, np.ndarray):
        state.update(f"{value.dtype.str}{value.shape}".encode())
        state.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, dict):
        for key, item in value.items():
            state.update(key.encode())
            update(state, item)
    elif isinstance(value, list | tuple):
        state.update(f"[{len(value)}]".encode())
        for item in value:
            update(state, item)
    elif isinstance(value, str | bytes):
        state.update(value.encode() if isinstance(value, str) else value)
    else:
        state.update(repr(float(value) if isinstance(value, float | np.floating) else int(value)).encode())


def digest(value: Any) -> str:
    """A digest of a value."""
    state = xxhash.xxh3_128()
    update(state, value)
    return str(state.hexdigest())


def run(folder: Path) -> dict[str, str]:
    """Everything, by name."""
    import awkward_inputs
    import small_recipe

    out = {}
    for room, cases in awkward_inputs.ROOMS.items():
        for number, (name, value) in enumerate(cases()):
            out[f"{room} {number}: {name}"] = digest(value)
    for name, value in small_recipe.digests(folder).items():
        out[f"recipe: {name}"] = digest(value)
    return out


@functools.cache
def check_that_indices_are_checked() -> None:
    """Compile a kernel with a fault, which must be found."""

    def read(data: np.ndarray, at: int) -> int:
        return int(data[at])

    try:
        numba.njit(read)(np.zeros(3), 3)
    except IndexError:
        return
    raise SystemExit("indices are not checked")


def widest_vectors() -> int:
    """The bits of the widest vectors in a kernel that has every reason to use them; 128 if the names are not known."""

    def add(a: np.ndarray, b: np.ndarray) -> None:
        for i in range(len(a)):
            a[i] += b[i]

    kernel = numba.njit(add)
    kernel(np.zeros(8, np.uint32), np.zeros(8, np.uint32))
    code = "".join(kernel.inspect_asm().values())
    return 512 if "%zmm" in code else 256 if "%ymm" in code else 128


# Kernels that call a function of a library by its address, which plain Python calls in its own way.
MACHINE_CODE = {"headrace.flow.xxh3._hash"}


def main() -> None:
    """The program."""
    plain = os.environ.get("NUMBA_DISABLE_JIT") == "1"
    widest = None if plain else widest_vectors()
    if plain:
        numba.njit = watched
        warnings.simplefilter("ignore")  # NumPy's scalars warn of the overflow that hashes are made of
    elif os.environ.get("NUMBA_BOUNDSCHECK") == "1":
        check_that_indices_are_checked()
    import_all()
    digests = run(Path(sys.argv[1]))
    print(json.dumps({"digests": digests, "unused": sorted(made - called - MACHINE_CODE), "widest": widest}))


if __name__ == "__main__":
    main()
