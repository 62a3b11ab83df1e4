"""Parse Python modules into syntax trees: shared by the docstring formats."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator

from headrace.documents.readers.base import Bad, Tally, excerpt
from headrace.documents.readers.streams import Damaged, Overlong, whole
from headrace.documents.sources import InputFile

# A syntax tree takes 67 times the bytes of its source (CPython 3.11, 4 MB of the standard library).
TREE_COPIES = 70
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def parse(file: InputFile, tally: Tally) -> tuple[ast.Module, bytes] | Bad:
    """The tree and bytes of a module, or what is wrong with it."""
    try:
        data = whole(file, tally, TREE_COPIES)
        if isinstance(data, Overlong):
            return tally.too_large(0, data.size, data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes are the module's business
            return ast.parse(data), data
    except Damaged as error:
        return Bad(0, str(error))
    except SyntaxError as error:
        return Bad(max((error.lineno or 1) - 1, 0), f"not Python: {error.msg}", excerpt(error.text or ""))
    except (ValueError, RecursionError, MemoryError) as error:  # NULs; nesting deeper than the parser supports
        return Bad(0, f"not Python: {error or type(error).__name__}")


def module_name(name: str) -> str:
    """A module's dotted name from its path: ``json/decoder.py`` -> ``json.decoder``."""
    stem = name.removesuffix(".gz").removesuffix(".zst").removesuffix(".py")
    parts = [part for part in stem.split("/") if part]
    if len(parts) > 1 and parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


def documented(tree: ast.Module, name: str) -> Iterator[tuple[str, Documented]]:
    """Yield (qualified name, node) for the module, its classes, and their functions, in source order.

    Nested functions are left out: they are part of the outer function's body.
    """
    yield name, tree
    waiting: list[tuple[str, ast.stmt]] = [(name, node) for node in reversed(tree.body)]
    while waiting:
        prefix, node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{prefix}.{node.name}", node
        elif isinstance(node, ast.ClassDef):
            yield f"{prefix}.{node.name}", node
            waiting.extend((f"{prefix}.{node.name}", child) for child in reversed(node.body))
        else:  # definitions under `if` and `try` belong to the scope around them
            blocks = [getattr(node, field, []) for field in ("body", "orelse", "finalbody")]
            handlers = [child for handler in getattr(node, "handlers", []) for child in handler.body]
            inner = [*blocks[0], *handlers, *blocks[1], *blocks[2]]
            waiting.extend((prefix, child) for child in reversed(inner))
