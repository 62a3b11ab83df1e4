"""The code of a function: its file, and what that file imports from its own folder."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import orjson
import xxhash

from headrace.errors import UserError
from headrace.flow.storage import cannot_read

Files = dict[str, bytes]
"""The files of some code: name relative to their folder, with ``/`` -> contents. The function's own file comes
first."""

MOST_BYTES = 16 << 20  # a larger folder is no filter's helper, but was imported by mistake


def read_modules(file: Path) -> Files:
    """Read a Python file and, recursively, the modules next to it that it imports.

    An import of ``words`` includes ``words.py``, or every ``.py`` file of the folder ``words``, if they lie in the
    file's folder. Standard library names are never taken from there. Imports by computed name are not seen.

    Raises:
        UserError: a file cannot be read or is not valid Python, or together they are larger than ``MOST_BYTES``.
    """
    folder = file.parent
    files: Files = {}
    waiting = [file]
    while waiting:
        path = waiting.pop()
        name = path.relative_to(folder).as_posix()
        if name in files:
            continue
        files[name] = _read(path)
        if sum(map(len, files.values())) > MOST_BYTES:
            raise UserError(
                f"The code that {file.name} imports from its folder is larger than {MOST_BYTES >> 20} MiB.",
                str(path),
                "Install large code as a package, or move the file into a folder that holds only its helpers.",
            )
        for module in sorted(_imported(parse(files[name], str(path)))):
            if module not in sys.stdlib_module_names:
                waiting += _beside(folder, module)
    return {file.name: files.pop(file.name), **dict(sorted(files.items()))}


def parse(source: bytes, name: str) -> ast.Module:
    """The syntax tree of a file.

    Raises:
        UserError: it is not valid Python.
    """
    try:
        return ast.parse(source, name)
    except SyntaxError as error:
        where = f"{name}, line {error.lineno}" if error.lineno else name
        raise UserError(f"The file is not valid Python: {error.msg}.", where, "Fix that line.") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"The file is not valid Python: {error}.", name, "Fix it, or name another.") from None


def digest_of(files: Files) -> str:
    """The hash of code, from the files' relative names and contents: 32 hexadecimal digits."""
    listed = [[name, xxhash.xxh3_128_hexdigest(data)] for name, data in files.items()]
    return xxhash.xxh3_128_hexdigest(orjson.dumps(listed))


def module_name(file: str) -> str:
    """The module name of a relative file: ``lib/words.py`` is ``lib.words``, ``lib/__init__.py`` is ``lib``."""
    parts = PurePosixPath(file).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError("The function's file does not exist.", str(path), "Fix the path.") from None
    except OSError as error:
        raise cannot_read("The function's file", path, error) from None


def _imported(tree: ast.Module) -> Iterator[str]:
    """The top-level names of all imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


def _beside(folder: Path, module: str) -> list[Path]:
    """The files of a module in a folder; none if it is not there."""
    inside = folder / module
    if inside.is_dir() and (found := sorted(inside.rglob("*.py"))):
        return found
    file = folder / f"{module}.py"
    return [file] if file.is_file() else []
