"""Reading a file the way a task does, without a run."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from headrace.documents.readers import reader
from headrace.documents.readers.base import Bad, Item, Lost, Part, Record, Skipped, Tally
from headrace.documents.sources import InputFile, list_files
from headrace.recipe.schema import Source


def listed(path: Path, **source: Any) -> tuple[InputFile, Source]:
    """The only file of a source."""
    read = Source.model_validate({"files": str(path), **source})
    (file,) = list_files("s", read, 1, path.parent)
    return file, read


def items(path: Path, part: Part = Part(), **source: Any) -> list[Item]:  # noqa: B008 - Part is frozen
    """Everything that a reader yields, its own count of rows checked."""
    file, read = listed(path, **source)
    tally = Tally()
    found = list(reader(file.format).read(file, part, read, tally))
    assert tally.read == sum(
        0 if isinstance(item, Lost) else item.rows if isinstance(item, Bad | Skipped) else 1 for item in found
    )
    return found


def singly(found: list[Item]) -> list[Item]:
    """An item for each row, of runs too."""
    return [
        one
        for item in found
        for one in (
            [replace(item, row=item.row + i, rows=1) for i in range(item.rows)]
            if isinstance(item, Bad | Skipped)
            else [item]
        )
    ]


def texts(found: list[Item]) -> list[str]:
    return [item.text for item in found if isinstance(item, Record)]


def bads(found: list[Item]) -> list[tuple[int, str]]:
    return [(item.row, item.error) for item in found if isinstance(item, Bad)]


def losses(found: list[Item]) -> list[tuple[int, str, int]]:
    """Row, error and bytes of each loss."""
    return [(item.row, item.error, item.bytes) for item in found if isinstance(item, Lost)]


def skips(found: list[Item]) -> list[int]:
    return [item.row for item in found if isinstance(item, Skipped)]


def write(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def open_files() -> int:
    """How many files this process holds open."""
    return len(os.listdir("/proc/self/fd"))
