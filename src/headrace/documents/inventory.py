"""The inventory of a run: the files of all its sources with their fingerprints, taken once by the coordinator.

Workers rebuild the graph from ``RUN/inventory.json`` instead of listing and hashing the input again, so that all of
them see one and the same input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson
import xxhash

from headrace.documents.fingerprint import fingerprint
from headrace.documents.sources import InputFile, list_files
from headrace.errors import UserError
from headrace.flow.storage import read_json, write_json
from headrace.recipe.schema import Source

INVENTORY = "inventory.json"
FINGERPRINTS = "fingerprints.json"


@dataclass(frozen=True)
class SourceFiles:
    """A source with its input.

    Attributes:
        name: the source's name.
        source: its section of the recipe.
        files: its input files, in reading order.
        digests: their fingerprints.
    """

    name: str
    source: Source
    files: tuple[InputFile, ...]
    digests: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """Size of the input on disk."""
        return sum(file.size for file in self.files)

    @cached_property
    def digest(self) -> str:
        """The hash of everything about the files that can show in a document: no path, no time, no host."""
        listed = [[f.name, f.format, f.take, d] for f, d in zip(self.files, self.digests, strict=True)]
        return xxhash.xxh3_128_hexdigest(orjson.dumps(listed))


def list_sources(sources: Mapping[str, Source], seed: int, base: Path) -> dict[str, list[InputFile]]:
    """The input files of each source, for ``plan``: nothing is read.

    Raises:
        UserError: as :func:`headrace.documents.sources.list_files`.
    """
    return {name: list_files(name, source, seed, base) for name, source in sources.items()}


def take_inventory(sources: Mapping[str, Source], seed: int, base: Path, run: Path) -> tuple[SourceFiles, ...]:
    """List and fingerprint the input of all sources, and leave it in ``RUN/inventory.json`` for the workers.

    Args:
        sources: the recipe's sources, in its order.
        seed: the recipe's seed.
        base: the recipe's folder.
        run: the run folder.

    Raises:
        UserError: a file is missing or cannot be read, or a glob matches nothing.
    """
    listed = list_sources(sources, seed, base)
    every = [file for files in listed.values() for file in files]
    digests = iter(fingerprint(every, run / FINGERPRINTS))
    taken = tuple(
        SourceFiles(name, sources[name], tuple(files), tuple(next(digests) for _ in files))
        for name, files in listed.items()
    )
    value = {s.name: [{**asdict(f), "digest": d} for f, d in zip(s.files, s.digests, strict=True)] for s in taken}
    write_json(run / INVENTORY, value)
    return taken


def read_inventory(sources: Mapping[str, Source], run: Path) -> tuple[SourceFiles, ...]:
    """The inventory that the coordinator took.

    Raises:
        UserError: there is none, or it is of other sources.
    """
    try:
        value = read_json(run / INVENTORY)
    except FileNotFoundError:
        value = None
    if not isinstance(value, dict) or list(value) != list(sources):
        raise UserError(
            "The run folder holds no inventory of this recipe's input.",
            str(run / INVENTORY),
            "Run `headrace run` again.",
        )

    def restored(name: str, entries: list[dict[str, Any]]) -> SourceFiles:
        digests = tuple(entry.pop("digest") for entry in entries)
        return SourceFiles(name, sources[name], tuple(InputFile(**entry) for entry in entries), digests)

    return tuple(restored(name, entries) for name, entries in value.items())
