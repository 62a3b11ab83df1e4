"""Find a record's fields by the names in a recipe: ``license``, or ``meta.license`` for a nested field.

A field whose own name contains a dot takes precedence over a nested one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

MISSING: Final = object()
"""Returned for a field that a record does not have; a field that exists may be null."""


def find(fields: Mapping[str, Any], name: str) -> Any:
    """The value of a field, or ``MISSING``."""
    path = _path(fields, name)
    if path is None:
        return MISSING
    value: Any = fields
    for key in path:
        value = value[key]
    return value


def take(fields: dict[str, Any], name: str) -> Any:
    """Remove a field from a record, along with any objects this leaves empty; returns its value, or ``MISSING``.

    Objects on the way are replaced by copies, since rows may share them.
    """
    if name in fields:
        return fields.pop(name)
    path = _path(fields, name)
    if path is None:
        return MISSING
    return _taken(fields, path)


def paths(fields: Mapping[str, Any], depth: int = 2) -> list[str]:
    """The names of a record's fields, sorted, including nested ones down to a depth."""
    found = []
    for key, value in fields.items():
        found.append(str(key))
        if depth and isinstance(value, dict):
            found += [f"{key}.{inner}" for inner in paths(value, depth - 1)]
    return sorted(found)


def _path(fields: Any, name: str) -> tuple[str, ...] | None:
    if not isinstance(fields, Mapping):
        return None
    if name in fields:
        return (name,)
    for head, rest in _splits(name):
        if head in fields and (inner := _path(fields[head], rest)) is not None:
            return (head, *inner)
    return None


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """``a.b.c`` as (``a``, ``b.c``) and (``a.b``, ``c``)."""
    at = name.find(".")
    while at >= 0:
        yield name[:at], name[at + 1 :]
        at = name.find(".", at + 1)


def _taken(fields: dict[str, Any], path: tuple[str, ...]) -> Any:
    head, *rest = path
    if not rest:
        return fields.pop(head)
    inner = dict(fields[head])
    value = _taken(inner, tuple(rest))
    if inner:
        fields[head] = inner
    else:
        del fields[head]
    return value
