"""What all sections of a recipe share: strictness, human-readable counts and sizes, and errors that say what to
write."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Container, Iterable
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    # Key -> the keys it displaces when one recipe is laid over another, because a section may hold only one or the
    # other.
    alternatives: ClassVar[dict[str, tuple[str, ...]]] = {}
    # Keys whose section the schema does not show, because it is not complete.
    inner: ClassVar[dict[str, type[Section]]] = {}

    @classmethod
    def without_displaced(cls, below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
        """This section's settings that remain when others are laid over it.

        Args:
            below: raw settings, such as a preset's.
            above: the settings laid over them; null means not set, and is left out.
        """
        others = [cls.alternatives.get(key, ()) for key in above]
        return without(below, {key for keys in others if not set(keys) & set(above) for key in keys})


def without(settings: dict[str, Any], keys: Container[str]) -> dict[str, Any]:
    """Settings without some keys."""
    return {key: value for key, value in settings.items() if key not in keys}


def wrong(what: str, fix: str = "", place: str = "") -> PydanticCustomError:
    """A validation error that says what to write.

    Args:
        what: what is wrong, in one sentence.
        fix: what to write instead.
        place: dotted key below the section that raises it, if the error is about part of that section.
    """
    # A template with only a field, so that braces in the sentence are not read as fields.
    return PydanticCustomError("recipe", "{what}", {"what": what, "fix": fix, "place": place})


def suggest(word: str, known: Iterable[str]) -> str:
    """``Did you mean 'x'?`` for the closest known word, or ''."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"Did you mean {near[0]!r}?" if near else ""


_COUNTS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}
_SIZES = {f"{prefix}{unit}": base**power
          for power, prefix in enumerate(("", "k", "m", "g", "t"))
          for unit, base in (("", 1000), ("b", 1000), ("ib", 1024))
          if prefix or unit != "ib"}  # fmt: skip
_NUMBER = re.compile(r"\s*([0-9][0-9_,]*\.?[0-9]*(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*)\s*")


def _parse(value: Any, units: dict[str, int], example: str) -> Any:
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value)
        if match is None or match[2].lower() not in units:
            raise wrong(f"{value!r} is not a number", f"write a number such as {example}")
        number, unit = match[1].replace("_", "").replace(",", ""), units[match[2].lower()]
        value = int(number) * unit if number.isdigit() else float(number) * unit
    if isinstance(value, float) and not math.isfinite(value):
        raise wrong(f"{value} is not a number", f"write a number such as {example}")
    if isinstance(value, float) and value == int(value):
        value = int(value)
    if isinstance(value, int | float) and value < 0:
        raise wrong(f"{value} is below 0", f"write a number such as {example}")
    return value


def parse_count(value: Any) -> Any:
    """Parse ``3e9``, ``"3B"``, ``"500M"`` or ``1_000`` as an integer; anything but text or a number is returned as
    is."""
    return _parse(value, _COUNTS, "3e9, 3B or 500M")


def parse_size(value: Any) -> Any:
    """Parse ``"8MB"`` (10^6 bytes), ``"8MiB"`` (2^20) or a number as bytes; anything else is returned as is."""
    return _parse(value, _SIZES, "8MB, 500kB or 4GiB")


Count = Annotated[int, BeforeValidator(parse_count)]
"""A count of documents, tokens or characters."""

Size = Annotated[int, BeforeValidator(parse_size)]
"""A number of bytes."""

# Names become parts of file names and dotted keys, so they are plain and contain no dot.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
"""A name: letters, digits, ``_`` and ``-``, at most 64 of them."""


def listed(value: Any) -> Any:
    """Wrap a single item in a list."""
    return [value] if isinstance(value, str | dict) else value
