"""What source text says about a function: that it exists, and the type of its results. Nothing is run."""

from __future__ import annotations

import ast
from dataclasses import dataclass

TYPES = ("bool", "int", "float", "str")


@dataclass(frozen=True)
class Signature:
    """A function or class at the top level of a file.

    Attributes:
        returns: the annotated type of its results (for a class, those of ``__call__``), one of :data:`TYPES`; None if
            there is none or another.
    """

    returns: str | None


def signatures(tree: ast.Module) -> dict[str, Signature]:
    """The functions and classes at the top level of a module, by name."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = Signature(_type(node.returns))
        elif isinstance(node, ast.ClassDef):
            calls = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__call__"]
            found[node.name] = Signature(_type(calls[0].returns) if calls else None)
    return found


def version(tree: ast.Module) -> str | None:
    """The literal value of a top-level ``VERSION = ...``, as text."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "VERSION" for t in node.targets):
            return ast.unparse(node.value)
    return None


def _type(annotation: ast.expr | None) -> str | None:
    """``float`` for ``float``, ``float | None``, ``Optional[float]``, or any of these in quotes."""
    if annotation is None:
        return None
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            annotation = ast.parse(annotation.value, mode="eval").body
        except (SyntaxError, ValueError):
            return None
    names = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)} - {"Optional", "Union", "typing"}
    only = names.pop() if len(names) == 1 else None
    return only if only in TYPES else None
