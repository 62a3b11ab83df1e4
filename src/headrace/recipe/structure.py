"""Walk the recipe's schema: which section is at a dotted place, and how a field's type reads in words."""

from __future__ import annotations

import types
import typing
from typing import Any

from pydantic import BaseModel


def _bare(annotation: Any) -> Any:
    """A type without ``Annotated`` and without ``| None``."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _bare(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        rest = [arg for arg in typing.get_args(annotation) if arg is not type(None)]
        return _bare(rest[0]) if len(rest) == 1 else annotation
    return annotation


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section in a field: directly, in a list or mapping, or as one of several types; None if there is none, or
    there are several."""
    found = sections_of(annotation)
    return found[0] if len(found) == 1 else None


def sections_of(annotation: Any) -> list[type[BaseModel]]:
    """The sections in a field; several if each is of a kind of its own."""
    bare = _bare(annotation)
    origin = typing.get_origin(bare)
    if origin in (tuple, list):
        return sections_of(typing.get_args(bare)[0])
    if origin is dict:
        return sections_of(typing.get_args(bare)[1])
    if origin in (typing.Union, types.UnionType):
        return [section for part in typing.get_args(bare) for section in sections_of(part)]
    return [bare] if isinstance(bare, type) and issubclass(bare, BaseModel) else []


def kind_of(section: type[BaseModel]) -> str | None:
    """The kind that a section is of, where it is one of several; None if it is the only one."""
    field = section.model_fields.get("kind")
    return str(field.default) if field and len(typing.get_args(field.annotation)) == 1 else None


def container_of(annotation: Any) -> str | None:
    """``"list"`` or ``"mapping"`` if a field holds a collection, else None."""
    return {tuple: "list", list: "list", dict: "mapping"}.get(typing.get_origin(_bare(annotation)))


def section_at(root: type[BaseModel], place: tuple[str | int, ...], data: Any = None) -> type[BaseModel] | None:
    """The section at a place such as ``("stages", 0, "train")``; None for a scalar or nothing.

    Args:
        root: the section that the place is in.
        place: keys and numbers.
        data: the raw settings of ``root``, which tell the kinds of sections.
    """
    found: list[type[BaseModel]] = [root]
    inside = False  # whether the next part selects an item of a list or mapping
    for part in place:
        data = item_of(data, part)
        if inside:
            inside = False
        else:
            section = found[0] if found else None
            if section is None or part not in section.model_fields:
                return None
            annotation = section.model_fields[str(part)].annotation
            inside, found = container_of(annotation) is not None, sections_of(annotation)
        if len(found) > 1 and not inside:
            kind = data.get("kind") if isinstance(data, dict) else None
            found = [one for one in found if kind_of(one) == kind] or found[:1] * (kind_of(found[0]) is not None)
    return found[0] if found and not inside else None


def item_of(data: Any, part: str | int) -> Any:
    """What raw settings have at a key or number; None if nothing. One section may stand for a list of one, and a list
    for a section that holds one."""
    if isinstance(data, dict):
        return data if isinstance(part, int) and part == 0 and part not in data else data.get(part)
    if isinstance(data, list | tuple) and isinstance(part, int):
        return data[part] if part < len(data) else None
    return data if isinstance(data, list | tuple) else None
