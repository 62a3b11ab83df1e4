"""Turn validation errors into one message: the dotted place, the line of the file, and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from headrace.errors import UserError
from headrace.recipe.base import suggest
from headrace.recipe.schema import Recipe
from headrace.recipe.structure import item_of, section_at

Place = tuple[str | int, ...]

# Tags that pydantic adds to tell a union's alternatives apart, such as [name]; they are not part of a place.
TAG = re.compile(r"\[\w+\]")

# One screen: further mistakes are counted, not listed.
_SHOWN = 8


@dataclass(frozen=True)
class Origin:
    """A file (or preset) that a recipe was read from, with the line of each of its keys."""

    name: str
    lines: dict[Place, int]


def explain(
    error: ValidationError, data: dict[str, Any], origins: Sequence[Origin], overrides: Sequence[str]
) -> UserError:
    """One message for all validation errors.

    Args:
        error: raised by pydantic for the recipe.
        data: the raw recipe that was validated.
        origins: the files it was read from, the recipe itself first.
        overrides: the ``--set`` texts, named if one caused a mistake.
    """
    found: dict[str, tuple[str, str, str]] = {}
    for detail in error.errors(include_url=False):
        mistake = _mistake(detail, data, origins, overrides)
        # Where several types are allowed, report only the first's error.
        found.setdefault(mistake[1] if detail["type"] != "recipe" else str(mistake), mistake)
    return told(list(found.values()), "recipe")


def told(mistakes: Sequence[tuple[str, str, str]], name: str) -> UserError:
    """One message for mistakes: a line each, as many as a screen shows.

    Args:
        mistakes: what, where and fix of each; at least one.
        name: what they are in.
    """
    if len(mistakes) == 1:
        what, where, fix = mistakes[0]
        return UserError(_sentence(what), where, _sentence(fix))
    shown = mistakes[:_SHOWN]
    lines = [f"{where}: {_clause(what)}{f'; {_clause(fix)}' if fix else ''}" for what, where, fix in shown]
    more = [f"and {len(mistakes) - _SHOWN} more"] if len(mistakes) > _SHOWN else []
    return UserError(f"The {name} has {len(mistakes)} mistakes:", found=(*lines, *more))


def _clause(text: str) -> str:
    """A sentence as part of another: "Define it." is "define it"."""
    begins = text[:1].lower() if text[1:2].islower() or text[1:2] == " " else text[:1]
    return f"{begins}{text[1:].rstrip('.')}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}{'' if text[-1] in '.?' else '.'}" if text else ""


def _mistake(
    detail: ErrorDetails, data: dict[str, Any], origins: Sequence[Origin], overrides: Sequence[str]
) -> tuple[str, str, str]:
    """What is wrong, where, and what to write, for one error."""
    kind, context = detail["type"], detail.get("ctx", {})
    place = _place(detail["loc"], data)
    if kind == "recipe":
        place = (*place, *(int(part) if part.isdigit() else part for part in context["place"].split(".") if part))
        return context["what"], _where(place, data, origins, overrides), context["fix"]
    where = _where(place, data, origins, overrides)
    if kind == "extra_forbidden":
        section = section_at(Recipe, place[:-1], data)
        known = [field.alias or name for name, field in section.model_fields.items()] if section else []
        fix = suggest(str(place[-1]), known) or (f"the keys here are {', '.join(known)}" if known else "")
        return f"unknown key {str(place[-1])!r}", where, fix
    if kind == "missing" and isinstance(place[-1], int):
        return f"item {place[-1] + 1} of the list is missing", where, "see docs/recipe.md for how many it needs"
    if kind == "missing":
        return f"the key {str(place[-1])!r} is missing", where, f"add `{place[-1]}:`"
    if kind == "literal_error":
        allowed = [word.strip("'\"") for word in context["expected"].replace(" or ", ", ").split(", ")]
        guess = suggest(str(detail["input"]), allowed)
        return (
            f"{shown(detail['input'])} is not allowed here",
            where,
            f"{guess} Use {', '.join(allowed)}".strip(),
        )
    if kind in _SECTION:
        section = section_at(Recipe, place, data)
        what = (
            "the section is empty" if detail["input"] is None else f"{shown(detail['input'])} is not a section of keys"
        )
        keys = ", ".join(field.alias or name for name, field in section.model_fields.items()) if section else ""
        return what, where, f"its keys are {keys}" if keys else "write names, each with a section of keys"
    if kind == "string_pattern_mismatch":
        return (
            f"{shown(detail['input'])} is not allowed as a name",
            where,
            "use letters, digits, _ and -, at most 64, starting with a letter or digit",
        )
    return _unfit(kind, detail["input"], context), where, _remedy(kind, context)


# For pydantic's type errors: what the value is not, and what to write, in a recipe's terms.
_SECTION = ("model_type", "model_attributes_type", "dict_type", "mapping_type", "dataclass_type")
_TYPES = {
    "string": ("text", "write text, in quotes if it looks like something else"),
    "int": ("a whole number", "write a whole number, such as 8"),
    "float": ("a number", "write a number, such as 0.5"),
    "finite": ("a number", "write a number, such as 0.5"),
    "bool": ("true or false", "write true or false"),
    "tuple": ("a list", "write a list, such as [a, b]"),
    "list": ("a list", "write a list, such as [a, b]"),
}
_LIMITS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def _unfit(kind: str, value: Any, context: dict[str, Any]) -> str:
    """What is wrong with a scalar value."""
    if kind in _LIMITS:
        key, words = _LIMITS[kind]
        return f"{shown(value)} is not {words} {context[key]}"
    if kind == "string_too_short":
        return "the text is empty"
    if kind in ("too_short", "too_long"):
        return (
            "there are no entries" if context["actual_length"] == 0 else f"there are {context['actual_length']} entries"
        )
    if kind == "int_parsing_size":
        return "the number is too large"
    return f"{shown(value)} is not {_TYPES.get(kind.partition('_')[0], ('allowed here', ''))[0]}"


def _remedy(kind: str, context: dict[str, Any]) -> str:
    """What to write instead of a scalar value."""
    if kind in _LIMITS:
        key, words = _LIMITS[kind]
        return f"write a number {'of ' if words.startswith('at') else ''}{words} {context[key]}"
    if kind == "string_too_short":
        return "write some text, or remove the key"
    if kind in ("too_short", "too_long"):
        return f"give at least {context['min_length']}" if kind == "too_short" else f"give {context['max_length']}"
    return _TYPES.get(kind.partition("_")[0], ("", "see docs/recipe.md for what belongs here"))[1]


def shown(value: Any) -> str:
    """A value as shown in a sentence."""
    try:
        text = repr(value)
    except ValueError:  # an integer with more digits than Python prints
        return "the number"
    return text if len(text) <= 60 else f"{text[:60]}..."


def _place(loc: Place, data: Any) -> Place:
    """Where in the recipe an error is, without the type names that pydantic appends."""
    place: Place = ()
    whole = data
    for part in loc:
        if isinstance(part, str) and TAG.fullmatch(part):
            continue
        stated = isinstance(data, dict) and part in data
        if isinstance(part, str) and not stated:
            section = section_at(Recipe, place, whole)
            if section is None or part not in section.model_fields:
                break
        place = (*place, part)
        data = item_of(data, part)
    return place


def _where(place: Place, data: dict[str, Any], origins: Sequence[Origin], overrides: Sequence[str]) -> str:
    """The dotted place, with the line of the file or the override it comes from."""
    dotted = ".".join(str(part) for part in place) or "the recipe"
    spelt = {dotted}
    if len(place) > 1 and place[0] == "stages" and isinstance(place[1], int):
        # An override may refer to a stage by name.
        name = data["stages"][place[1]].get("name") if isinstance(data["stages"][place[1]], dict) else None
        spelt.add(".".join(str(part) for part in ("stages", name, *place[2:])))
    for override in overrides:
        key = override.partition("=")[0].strip()
        if any(f"{spelling}.".startswith(f"{key}.") for spelling in spelt):
            return f"{dotted} (--set {override})"
    candidates = [place]
    if len(place) > 2 and place[0] == "stages":
        candidates.append(("defaults", *place[2:]))
    for depth in range(len(place) + 1):
        for candidate in candidates:
            part = candidate[: len(candidate) - depth]
            for origin in origins:
                if part and part in origin.lines:
                    return f"{dotted} ({origin.name}, line {origin.lines[part]})"
    return f"{dotted} ({origins[0].name})" if origins else dotted
