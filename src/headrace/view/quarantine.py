"""Rows that could not be read, as the quarantine lists them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from headrace.view.target import Target

QUARANTINED = "quarantined"
PAGE = 25  # entries on one page


@dataclass(frozen=True)
class Quarantined:
    """Some entries.

    Attributes:
        of: how many entries there are; one may stand for several rows of a damaged file.
        first: the place of the first one shown.
        entries: ``{"source", "file", "line", "error", "excerpt"}``.
    """

    of: int
    first: int
    entries: list[dict[str, Any]]


def quarantined(target: Target, source: str | None, first: int) -> Quarantined:
    """Entries of a source, or of all, from a place on."""
    of, shown = 0, []
    for line in _lines(target):
        entry = orjson.loads(line)
        if source is None or entry["source"] == source:
            if first <= of < first + PAGE:
                shown.append(entry)
            of += 1
    if of and first >= of:
        return quarantined(target, source, (of - 1) // PAGE * PAGE)
    return Quarantined(of, first, shown)


def place_of(target: Target, wanted: dict[str, Any]) -> int:
    """The place of an entry among those of its source."""
    entries = (orjson.loads(line) for line in _lines(target))
    return [one for one in entries if one["source"] == wanted["source"]].index(wanted)


def _lines(target: Target) -> Iterator[bytes]:
    documents = target.documents
    for entry in documents.manifest.files if documents is not None else ():
        if entry["name"].startswith("quarantine/"):
            assert documents is not None
            with open(documents.file_path(entry["name"]), "rb") as file:
                yield from file
