"""Find files that crash the process reading them, by reading them in another process.

pyarrow kills its process on some damaged files (an exception in a function declared not to raise any). When a worker
dies and its task is retried, this tells which parts of files must not be read at all. The answer depends only on the
files, so every run sets the same ones aside.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from headrace.documents.readers import READERS, reader
from headrace.documents.readers.base import Part, Tally
from headrace.documents.sources import InputFile
from headrace.errors import UserError
from headrace.flow.isolation import ProcessDied, run_isolated
from headrace.recipe.schema import Source


def crashing_parts(source: Source, parts: Sequence[tuple[InputFile, Part]]) -> dict[int, str]:
    """Which parts kill the process that splits or reads their files, and how.

    Args:
        source: the source they belong to.
        parts: files and parts of them.

    Returns:
        Part number -> what happened to the process.
    """
    given = [[asdict(file), asdict(part)] for file, part in parts]
    found: dict[int, str] = {}
    begin = 0
    while begin < len(given):
        at = begin
        try:
            for at in run_isolated(f"{__name__}:read", source.model_dump(mode="json", by_alias=True), given, begin):  # noqa: B007
                pass
        except ProcessDied as death:
            if death.signal == signal.SIGKILL:  # out of memory, which says nothing about the file
                return found
            found[at] = f"reading it ends the process: {death}"
            begin = at + 1
        else:
            return found
    return found


def read(source: dict[str, Any], parts: list[list[dict[str, Any]]], begin: int) -> Iterator[int]:
    """Read parts and discard the result, yielding the number of each before it is read."""
    taken = Source.model_validate(source)
    for number in range(begin, len(parts)):
        yield number
        file, part = InputFile(**parts[number][0]), Part(**parts[number][1])
        if file.format not in READERS:  # user-defined, which runs wherever the rest of the run does
            continue
        try:
            reader(file.format).split(file)
            for _ in reader(file.format).read(file, part, taken, Tally()):
                pass
        except UserError:
            pass  # whoever reads the part for real will hit it again
