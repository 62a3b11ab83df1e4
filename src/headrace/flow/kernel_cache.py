"""The cache of compiled kernels. An entry is named by a hash of everything compiled into the kernel.

To decide whether a cached kernel is out of date, Numba looks only at the file that defines it. But other kernels are
compiled into it, often from other files, and so are the values of globals. After an update of headrace it could
therefore keep running old code, while any edit to its own file recompiles it. Here an entry is named by the kernel's
byte code, its options and, recursively, what its globals hold, so it is out of date exactly when it would compile to
something else. Checkouts and versions can share one folder.

Numba unpickles its cache, so the folder must belong to this user and be writable by nobody else; otherwise it is
neither read nor written, and a notice says so.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import llvmlite.binding
import numba
import numpy as np
from numba.core import config
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile
from numba.core.codegen import JITCodeLibrary
from numba.core.dispatcher import Dispatcher
from numba.core.runtime import rtsys
from numba.extending import _Intrinsic

from headrace.flow.notices import Notice

# Entries unused for this long are removed when a kernel is compiled.
KEPT_SECONDS = 30 * 86_400
# The time of last use is updated only once it is older than this: one system call per kernel and day.
RENEWED_SECONDS = 86_400
# Numba's switches that change the code but are not in its own index (which has the processor's features).
SWITCHES = ("BOUNDSCHECK", "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "DEBUGINFO_DEFAULT")


def place() -> Path:
    """The folder of compiled kernels: ``NUMBA_CACHE_DIR`` if set, otherwise one in the user's cache."""
    if stated := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(stated)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace" / "kernels"


def objection(folder: Path) -> str | None:
    """Why compiled kernels cannot be cached in a folder, which is created if missing; None if they can."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = os.stat(folder)
    except OSError as error:
        return f"{folder} cannot be created: {error.strerror}"
    if status.st_uid != os.geteuid():
        return f"{folder} belongs to another user"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"{folder} is writable by others"
    return None if os.access(folder, os.W_OK | os.X_OK) else f"{folder} is not writable"


def state(kernel: Dispatcher) -> str:
    """32 hexadecimal digits that change with anything compiled into a kernel."""
    taken = hashlib.sha256(repr([getattr(config, name, None) for name in SWITCHES]).encode())
    _take_kernel(taken, kernel, set())
    return taken.hexdigest()[:32]


def _take_kernel(taken: Any, kernel: Dispatcher, seen: set[str]) -> None:
    function = kernel.py_func
    name = f"{function.__module__}.{function.__qualname__}"
    taken.update(name.encode())
    if name in seen:
        return
    seen.add(name)
    taken.update(repr(sorted(kernel.targetoptions.items())).encode())
    _take_function(taken, function, seen)


def _take_function(taken: Any, function: Any, seen: set[str]) -> None:
    _take(taken, (function.__defaults__, tuple(cell.cell_contents for cell in function.__closure__ or ())), seen)
    documented = function.__doc__ is not None
    _take_code(taken, function.__code__, function.__globals__, seen, documented)


def _take_code(taken: Any, code: CodeType, names: dict[str, Any], seen: set[str], documented: bool = False) -> None:
    taken.update(code.co_code)
    taken.update(repr((code.co_names, code.co_varnames, code.co_freevars, code.co_argcount)).encode())
    for constant in code.co_consts[documented:]:
        if isinstance(constant, CodeType):
            _take_code(taken, constant, names, seen)
        else:
            _take(taken, constant, seen)
    for name in code.co_names:
        if name not in names:
            continue  # an attribute or a builtin
        value = names[name]
        if isinstance(value, ModuleType) and value.__name__.partition(".")[0] == "headrace":
            _take(taken, tuple(getattr(value, other, None) for other in code.co_names), seen)
        else:
            taken.update(name.encode())
            _take(taken, value, seen)


def _take(taken: Any, value: Any, seen: set[str]) -> None:
    """Hash a constant or the value of a global.

    Raises:
        TypeError: no kernel has used a value of this type before; add a rule that identifies it here.
    """
    if isinstance(value, Dispatcher):
        _take_kernel(taken, value, seen)
    elif isinstance(value, np.ndarray):
        taken.update(f"{value.dtype.str}{value.dtype.descr}{value.shape}".encode())
        taken.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, tuple):
        taken.update(f"{type(value).__name__}{getattr(value, '_fields', '')}{len(value)}".encode())
        for item in value:
            _take(taken, item, seen)
    elif isinstance(value, frozenset):
        taken.update(repr(sorted(map(repr, value))).encode())
    elif value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic | np.dtype):
        taken.update(f"{type(value).__name__} {value!r}".encode())
    elif isinstance(value, ModuleType):
        taken.update(f"{value.__name__} {getattr(value, '__version__', '')}".encode())
    elif isinstance(value, type):
        taken.update(f"{value.__module__}.{value.__qualname__}{getattr(value, '_fields', '')}".encode())
    elif isinstance(value, FunctionType) and value.__module__.partition(".")[0] == "headrace":
        _take_function(taken, value, seen)
    elif isinstance(value, _Intrinsic):
        _take_function(taken, value._defn, seen)
    elif callable(value) or isinstance(value, numba.types.Type):
        taken.update(f"{getattr(value, '__module__', '')}.{getattr(value, '__name__', value)}".encode())
    else:
        raise TypeError(f"no rule for a {type(value).__name__} in a kernel")


class KernelCache(FunctionCache):
    """The cache of one kernel's compiled versions, with the interface that Numba expects.

    Args:
        kernel: hashed when it is first compiled, since kernels may call others that are defined after them.
    """

    def __init__(self, kernel: Dispatcher) -> None:
        self._kernel, self._py_func, self._name = kernel, kernel.py_func, repr(kernel.py_func)
        self._impl = _Reduced(kernel.py_func)
        self.enable()

    @property
    def cache_path(self) -> str:
        """The cache folder."""
        return str(place())

    @cached_property
    def _cache_file(self) -> OneAtATime:
        function = self._py_func
        name = f"{function.__module__}.{function.__qualname__}".replace("<", "").replace(">", "")
        python = f"py{sys.version_info[0]}{sys.version_info[1]}{getattr(sys, 'abiflags', '')}"
        return OneAtATime(self.cache_path, f"{name}-{state(self._kernel)}.{python}", "")

    def signatures(self, codegen: Any) -> list[Any]:
        """The argument types for which the kernel is cached on this processor."""
        if not _private(self.cache_path):
            return []
        return [key[0] for key in self._cache_file.entries() if key[1] == codegen.magic_tuple()]

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The cached version for some argument types, or None.

        Numba would first prepare to compile: import everything it can translate, SciPy included, 0.4 s in each process.
        Compiled code needs only its runtime, and compilation prepares by itself.
        """
        rtsys.initialize(target_context)
        target_context.codegen()._library_class = Library
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)

    def _load_overload(self, sig: Any, target_context: Any) -> Any:
        return super()._load_overload(sig, target_context) if _private(self.cache_path) else None

    def _save_overload(self, sig: Any, data: Any) -> None:
        if self._enabled and self._impl.check_cachable(data) and _private(self.cache_path):
            self._cache_file.save(self._index_key(sig, data.codegen), self._impl.reduce(data))


class _Reduced(CompileResultCacheImpl):
    """How a compiled kernel is serialized, without Numba's own choice of folder."""

    def __init__(self, function: Any) -> None:
        self._lineno, self._locator = function.__code__.co_firstlineno, _Source(function.__code__.co_filename)

    def rebuild(self, target_context: Any, payload: Any) -> Any:
        """Called by Numba with an entry's contents."""
        descriptor = payload[1]
        target_context.codegen()._engine._defined_symbols.add(descriptor.llvm_cpython_wrapper_name)
        return super().rebuild(target_context, payload)


class Library(JITCodeLibrary):
    """The code of a compiled kernel.

    An entry holds it twice: as machine code, and as LLVM IR for compilation into other kernels. Reading the IR takes
    more than half the time of loading an entry, and only compiling another kernel needs it.
    """

    _others: bytes | None = None

    @classmethod
    def _unserialize(cls, codegen: Any, state: Any) -> Library:
        name, _, (machine, others) = state
        library = cls(codegen, name)
        library.enable_object_caching()
        library._set_compiled_object(machine)
        library._finalize_final_module()
        library._others = others
        return library

    def get_pointer_to_function(self, name: str) -> int:
        """The address of a function defined here, or 0."""
        if not self._codegen._engine.is_symbol_defined(name):
            self._read_others()
        return int(super().get_pointer_to_function(name))

    def _get_module_for_linking(self) -> Any:
        self._read_others()
        return super()._get_module_for_linking()

    def _read_others(self) -> None:
        if self._others is not None:
            self._shared_module, self._others = llvmlite.binding.parse_bitcode(self._others), None
            self._codegen._engine._load_defined_symbols(self._shared_module)


class _Source:
    def __init__(self, file: str) -> None:
        self._py_file = file  # the name in Numba's warnings about this kernel


_judged: dict[str, bool] = {}


def _private(folder: str) -> bool:
    """Whether a folder may be used; checked once per process, since kernels are loaded one by one."""
    if folder not in _judged:
        against = objection(Path(folder))
        if against:
            warnings.warn(
                f"Every process recompiles its kernels because they cannot be cached: {against}. "
                "Set NUMBA_CACHE_DIR to a folder that only you can write to.",
                Notice,
                stacklevel=2,
            )
        _judged[folder] = against is None
    return _judged[folder]


class OneAtATime(IndexDataCacheFile):
    """Numba's cache files for one kernel, changed by one process at a time while no other reads them.

    Numba lets several processes write to one cache, but not safely: a new entry takes the next free number from an
    index file, and two processes that compile a kernel for different types at the same time take the same number. A
    process that reads the index of one and the code of the other runs a kernel on data of the wrong types: a crash, or
    wrong numbers. The workers of a first run compile concurrently, so entries are saved one at a time here.
    """

    def save(self, key: Any, data: Any) -> None:
        """Add an entry, next to those that other processes have added."""
        with self._locked(fcntl.LOCK_EX):
            self._remove_old()
            super().save(key, data)

    def load(self, key: Any) -> Any:
        """The entry for a key, or None."""
        with self._locked(fcntl.LOCK_SH):
            found = super().load(key)
            if found is not None:
                self._renew()
            return found

    def entries(self) -> list[Any]:
        """The keys of all entries."""
        with self._locked(fcntl.LOCK_SH):
            return list(self._load_index())

    def _renew(self) -> None:
        with suppress(OSError):
            if os.stat(self._index_path).st_mtime < time.time() - RENEWED_SECONDS:
                for path in Path(self._cache_path).glob(f"{self._index_name.removesuffix('.nbi')}.*"):
                    os.utime(path)

    def _remove_old(self) -> None:
        """Remove entries that no process has used for long, at most once a day."""
        with suppress(OSError):
            marker = Path(self._cache_path) / ".cleaned"
            if marker.exists() and marker.stat().st_mtime > time.time() - RENEWED_SECONDS:
                return
            marker.touch()
            for path in Path(self._cache_path).glob("*.nb[ic]"):
                if path.stat().st_mtime < time.time() - KEPT_SECONDS:
                    path.unlink()

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        handle = os.open(os.path.join(self._cache_path, ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, how)
            yield
        finally:
            os.close(handle)
