"""Merge settings: those above replace those below, along with whatever they exclude."""

from __future__ import annotations

from typing import Any

from headrace.errors import UserError
from headrace.recipe.base import Section
from headrace.recipe.structure import container_of, section_of


class _Kind:
    """What the schema knows about a place: a section, a collection of one kind, or nothing."""

    def __init__(self, section: type[Section] | None, many: bool = False) -> None:
        self.section, self.many = section, many

    def of(self, key: str | int) -> _Kind:
        """The kind of the value under a key."""
        if self.many or self.section is None:
            return _Kind(self.section)
        if str(key) in self.section.inner:
            return _Kind(self.section.inner[str(key)])
        field = self.section.model_fields.get(str(key))
        inner = section_of(field.annotation) if field else None
        if field is None or inner is None or not issubclass(inner, Section):
            return _Kind(None)
        return _Kind(inner, container_of(field.annotation) is not None)

    def without(self, below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
        """The settings below, without those displaced by keys above; a key that is null above counts as not set."""
        if self.section is None or self.many:
            return below
        return self.section.without_displaced(below, {key: value for key, value in above.items() if value is not None})


def merge(below: Any, above: Any, section: type[Section] | None) -> Any:
    """Merge one tree of settings over another: sections merge key by key, everything else is replaced.

    Args:
        below: raw settings, such as a preset's.
        above: raw settings.
        section: the schema section of both, which knows which keys exclude each other.
    """
    return _merge(below, above, _Kind(section))


def _merge(below: Any, above: Any, kind: _Kind) -> Any:
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    below = kind.without(below, above)
    return {**below, **{key: _merge(below.get(key), value, kind.of(key)) for key, value in above.items()}}


def put_all(tree: dict[str, Any], values: dict[str, tuple[list[str], Any]], section: type[Section]) -> dict[str, Any]:
    """A copy of the tree with values set; missing sections are created, and what the values exclude is dropped.

    Args:
        tree: raw settings.
        values: what the user wrote, for messages -> the keys of the place, and the value. List items are given by
            number, or by name if they have one. The last value wins.
        section: the schema section of the tree.

    Raises:
        UserError: there is no such place.
    """
    stated: dict[str, Any] = {}
    for keys, value in values.values():
        above = value
        for key in reversed(keys):
            above = {key: above}
        stated = _merge(stated, above, _Kind(None))
    tree = _cleared(tree, stated, _Kind(section))
    for override, (keys, value) in values.items():
        tree = put(tree, keys, value, override)
    return tree


def _cleared(tree: Any, stated: Any, kind: _Kind) -> Any:
    """The tree without what the stated settings displace; their keys may give list items by number or name."""
    if isinstance(tree, list) and isinstance(stated, dict):
        return [
            _cleared(item, stated.get(_name(item)) or stated.get(str(i)), kind.of(i)) for i, item in enumerate(tree)
        ]
    if not isinstance(tree, dict) or not isinstance(stated, dict):
        return tree
    return {key: _cleared(value, stated.get(key), kind.of(key)) for key, value in kind.without(tree, stated).items()}


def _name(item: Any) -> Any:
    return item.get("name") if isinstance(item, dict) else None


def put(tree: Any, keys: list[str], value: Any, override: str) -> Any:
    """A copy of a tree with a value set; missing sections are created.

    Args:
        tree: raw settings.
        keys: of the place; list items by number, or by name if they have one.
        value: the value.
        override: what the user wrote, for messages.

    Raises:
        UserError: there is no such place.
    """
    if not keys:
        return value
    head, rest = keys[0], keys[1:]
    if tree is None:
        tree = {}
    if isinstance(tree, dict):
        return {**tree, head: put(tree.get(head), rest, value, override)}
    if isinstance(tree, list):
        names = [_name(item) for item in tree]
        index = names.index(head) if head in names else int(head) if head.isdigit() else len(tree)
        if index >= len(tree):
            known = ", ".join(str(name if name is not None else i) for i, name in enumerate(names))
            raise UserError(f"The list has no item {head!r}.", override, f"The items are {known}.")
        return [put(item, rest, value, override) if i == index else item for i, item in enumerate(tree)]
    raise UserError(f"{head!r} cannot be set inside {tree!r}, which is not a section.", override, "Shorten the key.")
