"""Load functions from code: a run's copy of the user's files, text in the recipe, or an installed package.

A file runs under a module name of its own, with the bytes of the copy and the path of the original, so that it finds
the files next to it and tracebacks name the user's file. Its helper modules are imported by their plain names.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import linecache
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from headrace.errors import UserError
from headrace.functions.failures import last_line
from headrace.functions.modules import Files, digest_of, module_name


def load_file(file: Path, name: str, files: Files) -> Callable[..., Any]:
    """Load a function from a file.

    Args:
        file: the original's path.
        name: the function's name.
        files: contents of the file and its helpers, from :func:`headrace.functions.modules.read_modules`.

    Raises:
        UserError: the file cannot be run, or has no such function.
    """
    for relative in files:
        if relative != file.name:
            _LOCAL.offer(file.parent, relative, files[relative])
    return _attribute(_module(f"headrace_user_{digest_of(files)}", str(file), files[file.name]), name, str(file))


def load_text(text: str, name: str) -> Callable[..., Any]:
    """Load a function from source text.

    Raises:
        UserError: the text cannot be run, or has no such function.
    """
    data = text.encode()
    module = _module(f"headrace_user_{digest_of({'code': data})}", f"<code of {name}>", data)
    return _attribute(module, name, f"code of {name}")


def load_package(entry: EntryPoint) -> Callable[..., Any]:
    """Load a function from an installed package.

    Raises:
        UserError: it cannot be imported.
    """
    try:
        found: Callable[..., Any] = entry.load()
    except (Exception, SystemExit) as error:
        raise UserError(
            f"The package's {entry.value} cannot be imported: {type(error).__name__}: {error}.",
            f"package: {entry.name}",
            "Reinstall it, or install another version.",
        ) from None
    return found


def _module(name: str, path: str, data: bytes) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_loader(name, _Loader(path, data), origin=path)
    assert spec is not None
    spec.has_location = not path.startswith("<")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look there
    assert spec.loader is not None
    try:
        spec.loader.exec_module(module)
    except UserError:
        del sys.modules[name]
        raise
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UserError(
            f"{Path(path).name} cannot be run: {type(error).__name__}: {error}.",
            last_line(error) or path,
            "Fix it, or install what it imports. Each worker runs the file once before calling the function.",
        ) from None
    return module


def _attribute(module: ModuleType, name: str, where: str) -> Callable[..., Any]:
    found = getattr(module, name, None)
    if not callable(found):
        raise UserError(f"There is no function {name!r}.", where, "Fix the name after the colon.")
    called: Callable[..., Any] = found
    return called


class _Loader(importlib.abc.InspectLoader):
    """Runs given bytes as a module."""

    def __init__(self, path: str, data: bytes, package: bool = False) -> None:
        self.path, self.data, self.package = path, data, package

    def get_source(self, fullname: str) -> str:
        return importlib.util.decode_source(self.data)

    def get_code(self, fullname: str) -> CodeType:
        # Tracebacks then show the lines that ran, even if the file has changed since.
        lines = self.get_source(fullname).splitlines(keepends=True)
        linecache.cache[self.path] = (len(self.data), None, lines, self.path)
        code: CodeType = compile(self.data, self.path, "exec", dont_inherit=True)
        return code

    def is_package(self, fullname: str) -> bool:
        return self.package


class _Local(importlib.abc.MetaPathFinder):
    """Finds the helpers of the user's files before any installed module of the same name."""

    def __init__(self) -> None:
        self._known: dict[str, _Loader] = {}

    def offer(self, folder: Path, relative: str, data: bytes) -> None:
        """Make a helper module importable.

        Raises:
            UserError: another helper, or a module already imported, has the same name.
        """
        name, path = module_name(relative), str(folder / relative)
        known = self._known.get(name)
        if known is None and name in sys.modules:
            raise UserError(
                f"The helper {relative} has the same name as an installed module.", path, "Give it another name."
            )
        if known is not None and known.path != path:
            raise UserError(
                f"Two helpers are imported as {name!r}: {known.path} and {path}.", path, "Rename one of them."
            )
        if known is None or known.data != data:  # a process may run a recipe again after the code has changed
            self._known[name] = _Loader(path, data, relative.endswith("__init__.py"))
            sys.modules.pop(name, None)
        for parent in _parents(name):
            self._known.setdefault(parent, _Loader(str(folder / parent), b"", package=True))
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        loader = self._known.get(fullname)
        if loader is None:
            return None
        spec = importlib.util.spec_from_loader(fullname, loader, origin=loader.path, is_package=loader.package)
        if spec is not None:
            spec.has_location = True
        return spec


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


_LOCAL = _Local()
