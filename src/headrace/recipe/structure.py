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
    """The section in a field: directly, in a list or mapping, or as one of several types; None if there is none."""
    bare = _bare(annotation)
    origin = typing.get_origin(bare)
    if origin in (tuple, list):
        return section_of(typing.get_args(bare)[0])
    if origin is dict:
        return section_of(typing.get_args(bare)[1])
    if origin in (typing.Union, types.UnionType):
        found = [section for part in typing.get_args(bare) if (section := section_of(part)) is not None]
        return found[0] if len(found) == 1 else None
    return bare if isinstance(bare, type) and issubclass(bare, BaseModel) else None


def container_of(annotation: Any) -> str | None:
    """``"list"`` or ``"mapping"`` if a field holds a collection, else None."""
    return {tuple: "list", list: "list", dict: "mapping"}.get(typing.get_origin(_bare(annotation)))


def section_at(root: type[BaseModel], place: tuple[str | int, ...]) -> type[BaseModel] | None:
    """The section at a place such as ``("stages", 0, "train")``; None for a scalar or nothing."""
    section: type[BaseModel] | None = root
    inside = False  # whether the next part selects an item of a list or mapping
    for part in place:
        if inside:
            inside = False
            continue
        if section is None or part not in section.model_fields:
            return None
        annotation = section.model_fields[str(part)].annotation
        inside, section = container_of(annotation) is not None, section_of(annotation)
    return None if inside else section
