"""Refer to a function object from a recipe: by its file or, if it comes from a notebook or script, by its source.

A function from a script or notebook is saved with what it uses from that module: other functions and classes, imports,
plain values and compiled expressions. So it is the same in a worker, and its identity covers all of it; the script
itself does not run again.
"""

from __future__ import annotations

import ast
import builtins
import linecache
import re
import symtable
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from headrace.errors import UserError

_FILE = "Define it at the top level of a file and name it as `FILE:FUNCTION`."


def reference(function: Any) -> dict[str, str]:
    """The recipe keys that refer to a function or class: ``python``, and ``code`` if there is no file to read it from.

    Raises:
        UserError: it has no source, or uses a value that cannot be saved.
    """
    name, home = getattr(function, "__name__", ""), getattr(function, "__module__", "") or ""
    code = _code(function)
    if code is None:
        raise UserError(f"{function!r} has no Python source.", "", f"Wrap it in a function. {_FILE}")
    if home == "__main__":
        return {"python": name, "code": _written(name, function)}
    path = Path(code.co_filename)
    if "." in home or not path.is_file() or getattr(sys.modules.get(home), name, None) is not function:
        raise UserError(
            f"The function {name!r} of {home} is not defined at the top level of a file.",
            "",
            "Wrap it in a function in your script, notebook or file.",
        )
    return {"python": f"{path.absolute()}:{name}"}


def _code(function: Any) -> Any:
    """The code object of a function, or of a class's first method."""
    if isinstance(function, type):
        return next((code for part in vars(function).values() if (code := _code(part)) is not None), None)
    return getattr(function, "__code__", None)


def _written(name: str, function: Any) -> str:
    """The source of a module with a function and what it uses, each before what needs it."""
    pieces: dict[str, str] = {}
    some = function if not isinstance(function, type) else next(p for p in vars(function).values() if _code(p))
    _write(name, function, some.__globals__, pieces)
    imports = [text for text in pieces.values() if text.startswith(("import ", "from "))]
    return "\n".join([*imports, *(f"\n\n{text}" for text in pieces.values() if text not in imports)]).strip() + "\n"


def _write(name: str, value: Any, known: dict[str, Any], pieces: dict[str, str]) -> None:
    """Add the statement that defines a name, after those it needs."""
    if name in pieces:
        return
    pieces[name] = ""  # so that two functions may call each other
    text = _statement(name, value)
    for used in _globals_of(text):
        if used != name and used in known and not (hasattr(builtins, used) and known[used] is getattr(builtins, used)):
            _write(used, known[used], known, pieces)
    del pieces[name]
    pieces[name] = text


def _statement(name: str, value: Any) -> str:
    if isinstance(value, ModuleType):
        if _is_own(value.__name__):
            raise UserError(f"The function uses your own module {value.__name__}.", "", _FILE)
        return f"import {value.__name__}" + ("" if value.__name__ == name else f" as {name}")
    home = getattr(value, "__module__", None)
    if home == "__main__" and _code(value) is not None:
        return _text(name, value)
    if isinstance(value, re.Pattern):
        return f"{name} = __import__('re').compile({value.pattern!r}, {value.flags})"
    try:
        if ast.literal_eval(repr(value)) == value:
            return f"{name} = {value!r}"
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass
    called = getattr(value, "__name__", None) or getattr(value, "_name", None)
    if isinstance(home, str) and home != "__main__" and getattr(sys.modules.get(home), str(called), None) is value:
        if _is_own(home):
            raise UserError(f"The function uses {called} from your own module {home}.", "", _FILE)
        return f"from {home} import {called}" + ("" if called == name else f" as {name}")
    raise UserError(
        f"The function uses {name!r}, a {type(value).__name__} that cannot be saved with it.",
        "",
        f"Create it inside the function, or in a class's `__init__`. {_FILE}",
    )


def _is_own(module: str) -> bool:
    """Whether a module lies in the working folder, where changes would go unnoticed."""
    top = module.partition(".")[0]
    file = getattr(sys.modules.get(top), "__file__", None)
    return (
        file is not None and Path.cwd() in (Path(file).parent, Path(file).parent.parent) and "site-packages" not in file
    )


def _text(name: str, value: Any) -> str:
    """The source of a function or class at the top level of a script or cell, with its decorators."""
    methods = vars(value).values() if isinstance(value, type) else [value]
    for code in filter(None, map(_code, methods)):  # methods created by a decorator have no source
        lines = linecache.getlines(code.co_filename)
        for node in ast.parse("".join(lines)).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == getattr(value, "__name__", name):
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                if first <= code.co_firstlineno <= (node.end_lineno or first):
                    return "".join(lines[first - 1 : node.end_lineno]).rstrip()
    raise UserError(
        f"The source of the function {name!r} is not available, or it is not defined at the top level of its script.",
        "",
        _FILE,
    )


def _globals_of(text: str) -> list[str]:
    """The global names that a statement uses, sorted."""

    def visit(table: symtable.SymbolTable, top: bool) -> Iterator[str]:
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (symbol.is_global() or top):
                yield symbol.get_name()
        for child in table.get_children():
            yield from visit(child, False)

    return sorted(set(visit(symtable.symtable(text, "code", "exec"), True)))
