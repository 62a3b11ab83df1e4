"""The inventory of a run: the files of all its sources with their fingerprints, taken once by the coordinator.

Workers rebuild the graph from ``RUN/inventory.json`` instead of listing and hashing the input again, so that all of
them see one and the same input.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import orjson
import xxhash

from headrace.documents.checked_file import ChangedInput
from headrace.documents.fingerprint import fingerprint
from headrace.documents.sources import InputFile, list_files
from headrace.errors import UserError
from headrace.flow.notices import Notice
from headrace.flow.storage import Spoilt, read_sealed, write_sealed
from headrace.flow.task import TaskContext
from headrace.recipe.schema import Source

INVENTORY = "inventory.json"
FINGERPRINTS = "fingerprints.json"


@dataclass(frozen=True)
class SourceFiles:
    """A source with its input.

    Attributes:
        name: the source's name.
        source: its section of the recipe.
        files: its input files with their fingerprints, in reading order.
    """

    name: str
    source: Source
    files: tuple[InputFile, ...]

    @property
    def bytes(self) -> int:
        """Size of the input on disk."""
        return sum(file.size for file in self.files)

    @cached_property
    def digest(self) -> str:
        """The hash of everything about the files that can show in a document: no path, no time, no host."""
        listed = [[file.name, file.format, file.take, file.digest] for file in self.files]
        return xxhash.xxh3_128_hexdigest(orjson.dumps(listed))


def list_sources(sources: Mapping[str, Source], seed: int, base: Path) -> dict[str, list[InputFile]]:
    """The input files of each source, for ``plan``: nothing is read.

    Raises:
        UserError: as :func:`headrace.documents.sources.list_files`.
    """
    return {name: list_files(name, source, seed, base) for name, source in sources.items()}


def take_inventory(
    sources: Mapping[str, Source], seed: int, base: Path, run: Path, check: bool = False
) -> tuple[SourceFiles, ...]:
    """List and fingerprint the input of all sources, and leave it in ``RUN/inventory.json`` for the workers.

    Says in a notice what is taken as unchanged since an earlier run.

    Args:
        sources: the recipe's sources, in its order.
        seed: the recipe's seed.
        base: the recipe's folder.
        run: the run folder.
        check: read all files, also those that are known by size and time of change.

    Raises:
        UserError: a file is missing or cannot be read, or a glob matches nothing.
    """
    listed = list_sources(sources, seed, base)
    every = [file for files in listed.values() for file in files]
    found = fingerprint(every, run / FINGERPRINTS, check)
    if found.trusted:
        warnings.warn(as_before(found.trusted, found.trusted_bytes), Notice, stacklevel=2)
    files = iter(found.files)
    taken = tuple(SourceFiles(name, sources[name], tuple(islice(files, len(listed[name])))) for name in listed)
    write_sealed(run / INVENTORY, {"sources": {s.name: [asdict(file) for file in s.files] for s in taken}})
    return taken


def as_before(count: int, size: int) -> str:
    """What a run takes for granted, in words."""
    files = "1 input file" if count == 1 else f"{count:,} input files"
    return (
        f"{files} ({size / 1e6:,.1f} MB) assumed unchanged (same size and change time); --check-input reads them again"
    )


def read_inventory(sources: Mapping[str, Source], run: Path) -> tuple[SourceFiles, ...]:
    """The inventory that the coordinator took.

    Raises:
        UserError: there is none, it is of other sources, or it is not as it was written.
    """
    try:
        value = read_sealed(run / INVENTORY)["sources"]
    except (FileNotFoundError, Spoilt):
        value = {}
    if list(value) != list(sources):
        raise UserError(
            "The run folder has no inventory of this recipe's input.",
            str(run / INVENTORY),
            "Run `headrace run` again to create it.",
        )
    return tuple(
        SourceFiles(name, sources[name], tuple(InputFile(**entry) for entry in entries))
        for name, entries in value.items()
    )


Work = TypeVar("Work", bound=Callable[..., Any])


def distrusting(work: Work) -> Work:
    """A method of a step that reads input and is given the context first: when a file is not what was fingerprinted,
    no fingerprint that was remembered for its times is trusted any more.
    """

    @functools.wraps(work)
    def reads(step: Any, ctx: TaskContext, *args: Any) -> Any:
        try:
            return work(step, ctx, *args)
        except ChangedInput:
            (ctx.run / FINGERPRINTS).unlink(missing_ok=True)
            raise

    return reads  # type: ignore[return-value]
