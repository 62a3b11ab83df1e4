"""Write ``docs/recipe.md`` from the schema: ``python -m headrace.recipe.document > docs/recipe.md``."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from headrace.recipe.base import parse_count, parse_size
from headrace.recipe.load import preset_text, presets
from headrace.recipe.schema import Recipe
from headrace.recipe.structure import container_of, kind_of, section_of, sections_of

_HEAD = """# The recipe: every key

A recipe is one YAML file. Unknown keys are errors; omitted keys take the default shown here. This page is generated
from the schema by `python -m headrace.recipe.document`.

- **Overrides**: `headrace run recipe.yaml --set split.validation=0.02 --set stages.stage2.tokens=3B`. The value is
  YAML; refer to list items by number, or to stages by name.
- **Presets**: `extends: NAME` builds on a preset ({presets}; see the end of this page),
  `extends: base.yaml` on another file. Sections merge key by key; lists and plain values are replaced; null turns a
  section off. A key in the recipe replaces the preset's alternative to it: `tokenizer.file` replaces
  `tokenizer.train`, `threshold` replaces `bands` and `rows`, another `model.preset` replaces all keys of the model.
- **Counts** can be written as `3B`, `500M`, `8k` or `3e9`, **sizes** as `8MB` (10^6 bytes) or `8MiB` (2^20).
- **Paths** are relative to the recipe file. `${{recipe}}` is its folder, `${{stdlib}}` Python's standard library,
  `${{site}}` the installed packages; other `${{NAME}}` come from the environment.
- **Globs**: `*` matches within a folder, `**` crosses folders, `{{html,css}}` lists alternatives.
"""


def document() -> str:
    """The page as Markdown: one table per section, in the order in which they are first reached."""
    parts = [_HEAD.format(presets=", ".join(f"`{name}`" for name in presets()))]
    met: dict[type[BaseModel], str] = {}
    for place, section in _sections(Recipe, "", met):
        if met[section] != place:
            parts.append(f"\n## `{place}`\n\nThe keys of `{met[section]}`.")
            continue
        kind = kind_of(section)
        of = f", `kind: {kind}`" if kind else ""
        parts.append(f"\n## {f'`{place}`' if place else 'The recipe'}{of}\n")
        parts.append(f"{_sentence(inspect.cleandoc(section.__doc__ or ''))}\n")
        parts.append("| key | value | default | meaning |\n|---|---|---|---|")
        for name, field in section.model_fields.items():
            cells = (f"`{field.alias or name}`", _kind(field), _default(field), _sentence(field.description or ""))
            parts.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    parts.append("\n## Presets")
    for name in presets():
        parts.append(f"\n### `{name}`\n\n```yaml\n{preset_text(name).strip()}\n```")
    return "\n".join(parts) + "\n"


def _sections(
    section: type[BaseModel], place: str, met: dict[type[BaseModel], str]
) -> Iterator[tuple[str, type[BaseModel]]]:
    """Every section below one, with its dotted place; ``NAME`` stands for a name chosen by the user.

    A section's subsections are listed once; ``met`` receives where each section first appears.
    """
    if met.get(section) == place:
        return
    first = met.setdefault(section, place)
    yield place, section
    if first != place:
        return
    for name, field in section.model_fields.items():
        for inner in sections_of(field.annotation):
            many = {"mapping": ".NAME", "list": "[]", None: ""}[container_of(field.annotation)]
            yield from _sections(inner, f"{place}{'.' if place else ''}{name}{many}", met)


def _kind(field: FieldInfo) -> str:
    """A key's type in words, with its limits."""
    words = _of_parser(field.metadata) or _type(field.annotation)
    limits = [
        f"{sign} {getattr(item, name):g}" for item in field.metadata for name, sign in _LIMITS if hasattr(item, name)
    ]
    return f"{words}, {' and '.join(limits)}" if limits else words


_LIMITS = (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))


def _of_parser(metadata: Sequence[Any]) -> str | None:
    """The name of what one of the schema's parsers reads."""
    parsers = {item.func for item in metadata if isinstance(item, BeforeValidator)}
    return "size" if parse_size in parsers else "count" if parse_count in parsers else None


_WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null", Any: "anything"}


def _type(annotation: Any) -> str:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _of_parser(args[1:]) or _type(args[0])
    if origin is typing.Literal:
        return ", ".join(f"`{arg}`" for arg in args)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(arg) for arg in args))
    if origin is tuple:
        if args[-1] is Ellipsis:
            return f"list of {'sections' if section_of(args[0]) else _type(args[0])}"
        return f"[{', '.join(_type(arg) for arg in args)}]"
    if origin is dict:
        return f"{'length' if args[0] is int else 'name'}: {_type(args[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return _WORDS.get(annotation, str(annotation))


def _default(field: FieldInfo) -> str:
    """A key's default as YAML; an empty section or list appears as empty brackets."""
    value = field.default if field.default_factory is None else field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        return "its defaults"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(str(item) for item in value)}]"
    if isinstance(value, dict):
        return "{}"
    return f"`{value}`" if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)


def _sentence(text: str) -> str:
    """One paragraph that starts with a capital letter and ends with a period."""
    text = re.sub(r"\s+", " ", text).strip()
    if not text:
        return ""
    first = text if text.startswith("`") or re.match(r"[a-z_]+[:;]", text) else text[0].upper() + text[1:]
    return first if first[-1] in ".?)" else f"{first}."


if __name__ == "__main__":
    print(document(), end="")
