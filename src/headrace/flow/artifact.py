"""An artifact: a folder of shards with a manifest that is written last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from headrace.errors import UserError
from headrace.flow.mirror import here, mirror_of
from headrace.flow.remote import Spoilt
from headrace.flow.storage import SealError, digest_file, read_sealed

MANIFEST = "manifest.json"
TASKS = "tasks.json"  # tasks that other artifacts can reuse (:mod:`headrace.flow.reuse`)

Entry = dict[str, Any]
"""A file in a manifest: ``name``, ``bytes``, ``digest``, and ``rows`` for a shard."""


class ConservationError(RuntimeError):
    """Counts do not add up: read = kept + removed + quarantined does not hold. Always a bug in headrace."""


class DamagedArtifact(UserError):  # noqa: N818 - a state of the files, not of the program
    """A published artifact has changed since it was written. `headrace run` sets it aside and rebuilds it.

    Attributes:
        artifact: the name of its folder.
    """

    def __init__(self, what: str, where: str, fix: str = "", artifact: str = "") -> None:
        super().__init__(what, where, fix or "Run the recipe again with --verify to set it aside and rebuild it.")
        self.artifact = artifact


@dataclass(frozen=True)
class Manifest:
    """What an artifact is and contains.

    Attributes:
        kind: the kind of artifact, such as ``documents``.
        version: the ``VERSION`` of the step class that built it.
        identity: the hash of everything that determines the artifact's bytes.
        params: the step's parameters.
        inputs: role -> identity of each input artifact.
        shards: one ``{"name", "rows", "bytes", "digest"}`` per shard, in order.
        files: the same for further files.
        counts: the conserved counts, per source where that applies.
        extra: fields specific to the kind (ledger, schema, special ids, ...).
    """

    kind: str
    version: int
    identity: str
    params: dict[str, Any]
    inputs: dict[str, str]
    shards: list[dict[str, Any]]
    files: list[dict[str, Any]]
    counts: dict[str, Any]
    stage: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The manifest as it is written: the fields above, with those of ``extra`` at the top level."""
        head = {"kind": self.kind, "stage": self.stage, "version": self.version, "identity": self.identity}
        body = {"params": self.params, "inputs": self.inputs, "counts": self.counts, **self.extra}
        return {**head, **body, "files": self.files, "shards": self.shards}

    @staticmethod
    def from_json(value: dict[str, Any]) -> Manifest:
        """Read what :meth:`to_json` wrote."""
        known = {k: value[k] for k in ("kind", "version", "identity", "params", "inputs", "shards", "files", "counts")}
        extra = {k: v for k, v in value.items() if k not in known and k != "stage"}
        return Manifest(**known, stage=value.get("stage"), extra=extra)


@dataclass(frozen=True)
class Artifact:
    """A published artifact, opened for reading. Only the manifest is read at first.

    Attributes:
        path: its folder.
        manifest: what it is and contains.
        check: called with a file's entry before its path is returned; None trusts the files.
    """

    path: Path
    manifest: Manifest
    check: Callable[[Artifact, Entry], None] | None = field(default=None, compare=False, repr=False)

    @staticmethod
    def open(path: Path | str, verify: bool = False) -> Artifact:
        """Open a published artifact folder.

        Args:
            path: the folder.
            verify: compare each file with its digest when its path is first asked for.

        Raises:
            DamagedArtifact: the manifest has changed since it was written.
            UserError: the folder has no manifest.
        """
        path = Path(path)
        try:
            manifest = Manifest.from_json(read_sealed(here(path / MANIFEST)))
        except FileNotFoundError:
            raise UserError(
                "This folder is not a finished artifact: it has no manifest.json.",
                str(path),
                "Choose a folder under RUN/artifacts; `headrace status RUN` lists the finished ones.",
            ) from None
        except (SealError, KeyError, TypeError):
            raise DamagedArtifact(
                "The artifact's manifest has changed since it was written.", str(path / MANIFEST), artifact=path.name
            ) from None
        return Artifact(path, manifest, Once() if verify else None)

    @property
    def shards(self) -> list[dict[str, Any]]:
        """The manifest's shard entries, in order."""
        return self.manifest.shards

    def shard_path(self, index: int) -> Path:
        """The file of a shard.

        Raises:
            DamagedArtifact: files are being checked, and this one has changed since it was written.
        """
        return self._checked(self.manifest.shards[index])

    def file_path(self, name: str) -> Path:
        """Another file of the artifact, such as ``tokenizer.json``.

        Raises:
            DamagedArtifact: files are being checked, and this one has changed since it was written.
        """
        entry = next((entry for entry in self.manifest.files if entry["name"] == name), None)
        return self.path / name if entry is None else self._checked(entry)

    def _checked(self, entry: Entry) -> Path:
        try:
            path = here(self.path / str(entry["name"]), entry)
        except Spoilt:
            verify(self, entry)
            raise
        if self.check is not None:
            self.check(self, entry)
        return path

    @property
    def entries(self) -> list[Entry]:
        """All files listed in the manifest."""
        return [*self.manifest.shards, *self.manifest.files]

    @cached_property
    def row_offsets(self) -> np.ndarray:
        """int64[n_shards + 1]: the global row number of each shard's first row, and the total."""
        return np.cumsum([0] + [s["rows"] for s in self.manifest.shards], dtype=np.int64)

    @cached_property
    def rows(self) -> int:
        """The number of rows in all shards."""
        return int(self.row_offsets[-1])

    @property
    def bytes(self) -> int:
        """The size of all shards and files on disk."""
        return sum(int(entry["bytes"]) for entry in self.entries)

    def locate(self, row: int) -> tuple[int, int]:
        """The shard that holds a global row number, and the row within it."""
        if not 0 <= row < self.rows:
            raise IndexError(f"row {row} of an artifact of {self.rows} rows")
        shard = int(np.searchsorted(self.row_offsets, row, side="right")) - 1
        return shard, row - int(self.row_offsets[shard])


def flaw(path: Path, entry: Entry, read: bool = True) -> str | None:
    """What is wrong with a recorded file, in words; None if it matches its size and digest.

    Args:
        path: the file.
        entry: its ``bytes`` and ``digest``.
        read: read it and compare its digest; otherwise only its size is compared.
    """
    try:
        if read:
            here(path, entry)
        elif mirror_of(path) is not None and not path.exists():
            return None  # the store has what a manifest lists; what became of it since shows when it is fetched
        size = path.stat().st_size
        if not path.is_file():
            return "is not a file"
        if size != entry["bytes"]:
            return f"has {size:,} bytes instead of {entry['bytes']:,}"
        if read and digest_file(path) != entry["digest"]:
            return "does not hold what was written: its digest differs"
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except Spoilt:
        return "does not hold what was written: its digest differs"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None


def verify(artifact: Artifact, entry: Entry, read: bool = True) -> None:
    """Compare a file of an artifact with its manifest entry.

    Raises:
        DamagedArtifact: they differ.
    """
    wrong = flaw(artifact.path / entry["name"], entry, read)
    if wrong is not None:
        raise DamagedArtifact(
            f"A finished artifact is damaged: {entry['name']} {wrong}.",
            str(artifact.path / entry["name"]),
            artifact=artifact.path.name,
        )


class Once:
    """A check that compares each file once per process, the first time it is asked for."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def __call__(self, artifact: Artifact, entry: Entry) -> None:
        """Check a file.

        Raises:
            DamagedArtifact: the file differs from its entry.
        """
        if entry["name"] not in self._seen:
            verify(artifact, entry)
            self._seen.add(entry["name"])
