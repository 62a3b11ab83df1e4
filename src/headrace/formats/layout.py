"""Which folder of an export holds the rows of which source: one for each, or as a YAML file says."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from headrace.errors import UserError
from headrace.flow.artifact import MANIFEST
from headrace.recipe.bounded_yaml import MOST_BYTES, parse
from headrace.recipe.mistakes import suggest
from headrace.sequence.reader import SequenceReader

SOURCES = "sources"
"""The layout in which each source of a stage has a folder, ``STAGE/SOURCE``."""

# Folders of CrystalCoder's halves, whose files were dealt out by the parity of their numbers.
_PART = re.compile(r"_part(\d+)of(\d+)$")

OPTION = "--layout"


def folders(layout: str, stage: str, sequence: SequenceReader) -> tuple[tuple[str, str], ...]:
    """The folder of each source of a stage.

    Args:
        layout: :data:`SOURCES`, or a YAML file: stage -> source -> folder, below that of the export.
        stage: the stage's name.
        sequence: its rows.

    Raises:
        UserError: the file cannot be read, or lacks the stage or a source, or a folder lies elsewhere.
    """
    sources = sequence.sources
    if layout == SOURCES:
        return tuple((source, f"{stage}/{source}") for source in sources)
    told = _read(Path(layout)).get(stage)
    if not isinstance(told, dict):
        raise UserError(
            f"The layout has no stage {stage!r}.", layout, "Write a section with the folder of each of its sources."
        )
    for source in told:
        if source not in sources:
            fix = suggest(str(source), sources) or f"The sources are {', '.join(sources)}."
            raise UserError(f"The stage {stage!r} has no source {source!r}.", layout, fix)
    # A run's sequences also name sources of other stages.
    ledger = sequence.manifest.get("ledger", {"sources": sources})
    for source in ledger["sources"]:
        if source not in told:
            raise UserError(f"The layout has no folder for {source!r} of {stage!r}.", layout, "Add one.")
    return tuple((source, _folder(folder, f"{layout}: {stage}.{source}")) for source, folder in told.items())


def _read(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            text = file.read(MOST_BYTES + 1).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(
            f"The layout cannot be read: {why}.", f"{OPTION} {path}", f"Give a YAML file, or `{SOURCES}`."
        ) from None
    if len(text) > MOST_BYTES:
        raise UserError("The layout is too large.", str(path), "Write stage -> source -> folder.")
    value = parse(text, str(path))[1]
    if not isinstance(value, dict):
        raise UserError("The layout is not a mapping.", str(path), "Write stage -> source -> folder.")
    return value


def _folder(value: Any, where: str) -> str:
    path = PurePosixPath(value) if isinstance(value, str) else None
    outside = path is None or path.is_absolute() or not path.parts or ".." in path.parts or "\0" in str(path)
    if path is None or outside or path.parts[0] == MANIFEST:
        raise UserError(f"{value!r} is no folder below the export.", where, "Write one such as phase1/wikipedia.")
    return str(path)


def file_in(folder: str, number: int, suffix: str) -> str:
    """The name of a folder's file. Those of a folder ``..._part1of2`` have the numbers 1, 3, ..., as CrystalCoder's."""
    part = _PART.search(folder)
    if part is not None and int(part[1]) < int(part[2]):
        number = int(part[1]) + int(part[2]) * number
    return f"{folder}/data-{number:05d}{suffix}"
