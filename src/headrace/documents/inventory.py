"""The inventory of a run: the files of all its sources with their fingerprints, taken once by the coordinator.

Workers rebuild the graph from ``RUN/inventory.json`` instead of listing and hashing the input again, so that all of
them see the same input.
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
from headrace.flow.storage import SealError, read_sealed, write_sealed
from headrace.flow.task import TaskContext
from headrace.recipe.schema import Source

INVENTORY = "inventory.json"
FINGERPRINTS = "fingerprints.json"


@dataclass(frozen=True)
class SourceFiles:
    """A source with its input files.

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
        """The size of the input on disk."""
        return sum(file.size for file in self.files)

    @cached_property
    def digest(self) -> str:
        """The hash of everything about the files that can affect a document: no paths, times or hosts."""
        listed = [[file.name, file.format, file.take, file.digest] for file in self.files]
        return xxhash.xxh3_128_hexdigest(orjson.dumps(listed))


def list_sources(sources: Mapping[str, Source], seed: int, base: Path) -> dict[str, list[InputFile]]:
    """The input files of each source, for ``plan``: no file is read.

    Raises:
        UserError: see :func:`headrace.documents.sources.list_files`.
    """
    return {name: list_files(name, source, seed, base) for name, source in sources.items()}


def take_inventory(
    sources: Mapping[str, Source], seed: int, base: Path, run: Path, check: bool = False
) -> tuple[SourceFiles, ...]:
    """List and fingerprint the input of all sources, and write ``RUN/inventory.json`` for the workers.

    A notice says what is assumed to be unchanged since an earlier run.

    Args:
        sources: the recipe's sources, in its order.
        seed: the recipe's seed.
        base: the recipe's folder.
        run: the run folder.
        check: read all files, including those recognized by size and change time.

    Raises:
        UserError: a file is missing or cannot be read, or a glob matches nothing.
    """
    listed = list_sources(sources, seed, base)
    every = [file for files in listed.values() for file in files]
    found = fingerprint(every, run / FINGERPRINTS, check)
    if found.trusted:
        warnings.warn(assumed_unchanged(found.trusted, found.trusted_bytes), Notice, stacklevel=2)
    files = iter(found.files)
    taken = tuple(SourceFiles(name, sources[name], tuple(islice(files, len(listed[name])))) for name in listed)
    write_sealed(run / INVENTORY, {"sources": {s.name: [asdict(file) for file in s.files] for s in taken}})
    return taken


def assumed_unchanged(count: int, size: int) -> str:
    """What a run assumes to be unchanged, in words."""
    files = "1 input file" if count == 1 else f"{count:,} input files"
    return (
        f"{files} ({size / 1e6:,.1f} MB) assumed unchanged (same size and change time); --check-input reads them again"
    )


def read_inventory(sources: Mapping[str, Source], run: Path) -> tuple[SourceFiles, ...]:
    """Read the inventory that the coordinator took.

    Raises:
        UserError: there is none, it lists other sources, or it has changed since it was written.
    """
    try:
        value = read_sealed(run / INVENTORY)["sources"]
    except (FileNotFoundError, SealError):
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


def invalidates_fingerprints(work: Work) -> Work:
    """Decorate a step's method that reads input and takes the context first: if a file differs from its fingerprint,
    discard the cache of fingerprints.
    """

    @functools.wraps(work)
    def reads(step: Any, ctx: TaskContext, *args: Any) -> Any:
        try:
            return work(step, ctx, *args)
        except ChangedInput:
            (ctx.run / FINGERPRINTS).unlink(missing_ok=True)
            raise

    return reads  # type: ignore[return-value]
