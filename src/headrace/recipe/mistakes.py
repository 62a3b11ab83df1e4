"""Turn what validation found into one message: the dotted place, the line of the file, and what to write instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from headrace.errors import UserError
from headrace.recipe.base import suggest
from headrace.recipe.schema import Recipe
from headrace.recipe.structure import section_at

Place = tuple[str | int, ...]

# One screen: more mistakes than this are counted, not listed.
_SHOWN = 8


@dataclass(frozen=True)
class Origin:
    """A file (or preset) that a recipe was read from, and the line of each key in it."""

    name: str
    lines: dict[Place, int]


def explain(
    error: ValidationError, data: dict[str, Any], origins: Sequence[Origin], overrides: Sequence[str]
) -> UserError:
    """One message for everything that validation found.

    Args:
        error: what pydantic raised for the recipe.
        data: the raw recipe that was validated.
        origins: the files it was read from, the recipe itself first.
        overrides: the ``--set`` texts, named when they hold the mistake.
    """
    mistakes = [_mistake(detail, data, origins, overrides) for detail in error.errors(include_url=False)]
    if len(mistakes) == 1:
        what, where, mend = mistakes[0]
        return UserError(_sentence(what), where, _sentence(mend))
    lines = [f"{where}: {what}{f'; {mend}' if mend else ''}" for what, where, mend in mistakes[:_SHOWN]]
    if len(mistakes) > _SHOWN:
        lines.append(f"and {len(mistakes) - _SHOWN} more")
    return UserError(f"The recipe has {len(mistakes)} mistakes:", found=tuple(lines))


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}{'' if text[-1] in '.?' else '.'}" if text else ""


def _mistake(
    detail: ErrorDetails, data: dict[str, Any], origins: Sequence[Origin], overrides: Sequence[str]
) -> tuple[str, str, str]:
    """What, where and how to mend, for one finding."""
    kind, context = detail["type"], detail.get("ctx", {})
    place: Place = tuple(part for part in detail["loc"] if part != "[key]")
    if kind == "recipe":
        place = (*place, *(int(part) if part.isdigit() else part for part in context["place"].split(".") if part))
        return context["what"], _where(place, data, origins, overrides), context["mend"]
    where = _where(place, data, origins, overrides)
    if kind == "extra_forbidden":
        section = section_at(Recipe, place[:-1])
        known = [field.alias or name for name, field in section.model_fields.items()] if section else []
        mend = suggest(str(place[-1]), known) or (f"the keys here are {', '.join(known)}" if known else "")
        return f"unknown key {str(place[-1])!r}", where, mend
    if kind == "missing":
        return f"the key {str(place[-1])!r} is missing", where, f"add `{place[-1]}:`"
    if kind == "literal_error":
        allowed = [word.strip("'\"") for word in context["expected"].replace(" or ", ", ").split(", ")]
        guess = suggest(str(detail["input"]), allowed)
        return (
            f"{detail['input']!r} is not possible here",
            where,
            f"{guess} Use {', '.join(allowed)}".strip(),
        )
    if kind == "model_type" and detail["input"] is None:
        return "the section is empty", where, "give it keys, or leave it out"
    if kind == "string_pattern_mismatch":
        return (
            f"{detail['input']!r} is no name",
            where,
            "use letters, digits, _ and -, at most 64, beginning with a letter or digit",
        )
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    short = repr(detail["input"])
    got = f" (it is {short})" if len(short) <= 40 and kind != "value_error" else ""
    return f"the value {message}{got}" if message != detail["msg"] and kind != "value_error" else message, where, ""


def _where(place: Place, data: dict[str, Any], origins: Sequence[Origin], overrides: Sequence[str]) -> str:
    """The dotted place, and the line of the file or the override that holds it."""
    dotted = ".".join(str(part) for part in place) or "the recipe"
    spelt = {dotted}
    if len(place) > 1 and place[0] == "stages" and isinstance(place[1], int):
        # An override may call a stage by its name.
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
