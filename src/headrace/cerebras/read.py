"""Read a params file: bounded YAML in which every key is known, of the right kind, and of a value that is accepted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.cerebras.keys import KINDS, SECTIONS, Key
from headrace.errors import UserError
from headrace.recipe.base import suggest
from headrace.recipe.bounded_yaml import lines, parse, read_text
from headrace.recipe.load import parse_override
from headrace.recipe.mistakes import shown, told
from headrace.recipe.overlay import put

Place = tuple[str | int, ...]
NOTES = {"noted": "has no effect here", "hardware": "means nothing off Cerebras' hardware"}


@dataclass(frozen=True)
class Params:
    """A params file that was read.

    Attributes:
        path: the file.
        values: its sections; keys that are null are left out.
        notes: a line about each key that has no effect here.
    """

    path: Path
    values: Mapping[str, Any]
    notes: tuple[str, ...]

    def section(self, name: str) -> dict[str, Any]:
        """A section, empty if there is none."""
        return dict(self.values.get(name) or {})

    def wrong(self, what: str, place: str, fix: str) -> UserError:
        """The error about a place of the file."""
        return UserError(what, f"{place} ({self.path})", fix)


def read(path: Path, flags: Mapping[str, Any], overrides: Sequence[str] = ()) -> Params:
    """Read a params file.

    Args:
        path: the file.
        flags: dotted key -> value of flags of the command line, which go before the file; None is not given.
        overrides: ``a.b.c=value`` in YAML, which go before both.

    Raises:
        UserError: it cannot be read, or has keys or values that are unknown or refused; names each with its line.
    """
    node, data = parse(read_text(path, "params file", "Check the path."), str(path))
    if not isinstance(data, dict):
        raise UserError("A params file is a mapping of sections.", str(path), f"Its sections are {_names('')}.")
    where = dict(lines(node, (), str(path)))
    for dotted, value in flags.items():
        if value is not None:
            data = put(data, dotted.split("."), value, f"--{dotted.rpartition('.')[2]}")
    for override in overrides:
        keys, value = parse_override(override)
        data = put(data, keys, value, f"--set {override}")
    checked = _Checked(path, where)
    values = checked.section("", data, ())
    if checked.mistakes:
        raise told(checked.mistakes, "params file")
    return Params(path, values, tuple(dict.fromkeys(checked.notes)))


def _names(section: str) -> str:
    return ", ".join(key.name for key in SECTIONS[section])


class _Checked:
    """What was found while a file is walked along the table of keys."""

    def __init__(self, path: Path, where: Mapping[Place, int]) -> None:
        self._path, self._lines = path, where
        self.mistakes: list[tuple[str, str, str]] = []
        self.notes: list[str] = []

    def _wrong(self, what: str, place: Place, fix: str = "") -> None:
        line = next((f", line {self._lines[p]}" for p in _above(place) if p in self._lines), "")
        self.mistakes.append((what, f"{_dotted(place) or 'the file'} ({self._path}{line})", fix))

    def section(self, name: str, value: Any, place: Place) -> dict[str, Any]:
        """The known keys of a section with their values."""
        if not isinstance(value, dict):
            self._wrong(f"{shown(value)} is not a section of keys", place, f"Its keys are {_names(name)}.")
            return {}
        keys = {key.name: key for key in SECTIONS[name]}
        out: dict[str, Any] = {}
        for given, one in value.items():
            here = (*place, str(given))
            if given not in keys:
                fix = suggest(str(given), keys) or self._elsewhere(str(given)) or f"The keys here are {_names(name)}."
                self._wrong(f"unknown key {shown(given)}", here, fix)
                continue
            key = keys[keys[given].same or given]
            if one is not None:
                found = self._value(key, one, here)
                if out.setdefault(key.name, found) != found:
                    self._wrong(f"{key.name} is given twice, as {shown(out[key.name])} and here", here, "Remove one.")
            if key.use in NOTES:
                self.notes.append(f"{_plain(here)} {NOTES[key.use]}: {key.meaning}.")
        return out

    @staticmethod
    def _elsewhere(key: str) -> str:
        found = [name for name, keys in SECTIONS.items() if any(one.name == key for one in keys)]
        return f"It belongs in {' or '.join(found)}." if found and found != [""] else ""

    def _value(self, key: Key, value: Any, place: Place) -> Any:
        if key.use == "refused" and not (key.only and self._kind(key, value, place) in key.only):
            self._wrong(f"{key.name} is not supported: {key.meaning}", place, "Remove it.")
            return None
        value = self._kind(key, value, place)
        if key.only and isinstance(value, str):
            value = next((one for one in key.only if one.lower() == value.lower()), value)
        if key.only and value is not None and value not in key.only:
            allowed = ", ".join(shown(one) for one in key.only)
            guess = suggest(str(value), [str(one) for one in key.only])
            self._wrong(f"{shown(value)} is not supported: {key.otherwise}", place, f"{guess} Use {allowed}.".strip())
        return value

    def _kind(self, key: Key, value: Any, place: Place) -> Any:
        """The value, checked; None if it is of another kind."""
        if key.kind == "section":
            return self.section(key.section, value, place)
        if key.kind in ("sections", "rates"):
            if isinstance(value, dict) and key.kind == "rates":
                value = [value]
            if isinstance(value, list) and value:
                return [self.section(key.section, one, (*place, i)) for i, one in enumerate(value)]
            if key.kind == "rates" and (rate := _of_kind("number", value)) is not None:
                return [{"scheduler": "Constant", "learning_rate": rate}]
        else:
            found = _of_kind(key.kind, value)
            if found is not None:
                return found
        self._wrong(f"{shown(value)} is not {KINDS[key.kind]}", place)
        return None


def _of_kind(kind: str, value: Any) -> Any:
    """The value if it is of a kind; None if it is not."""
    if kind == "anything":
        return value if (number := _number(value)) is None or isinstance(value, bool) else number
    if kind == "flag":
        return value if isinstance(value, bool) else None
    if kind == "text":
        return value if isinstance(value, str) and value else None
    if kind == "texts":
        texts = [value] if isinstance(value, str) else value
        good = isinstance(texts, list) and texts and all(isinstance(text, str) and text for text in texts)
        return texts if good else None
    if kind == "numbers":
        rates = [_number(one) for one in value] if isinstance(value, list) else []
        return rates if rates and all(rate is not None and rate >= 0 for rate in rates) else None
    number = _number(value)
    if kind == "signed":
        return number
    if number is None or number < 0 or (number == 0 and kind in ("count", "positive")):
        return None
    if kind in ("count", "whole"):
        return int(number) if number == int(number) and number < 2**63 else None
    return number


def _number(value: Any) -> float | int | None:
    """A finite number; YAML reads ``1e-5``, without a point, as text."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer beyond any float
        return None


def _above(place: Place) -> Iterator[Place]:
    return (place[: len(place) - n] for n in range(len(place)))


def _dotted(place: Place) -> str:
    return ".".join(str(part) for part in place)


def _plain(place: Place) -> str:
    """A place without the numbers of list items."""
    return _dotted(tuple(part for part in place if isinstance(part, str)))
