"""An artifact: a folder of shards with a manifest that is written last."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from headrace.errors import UserError
from headrace.flow.storage import read_json

MANIFEST = "manifest.json"
TASKS = "tasks.json"  # the tasks that other artifacts may take over (:mod:`headrace.flow.reuse`)


class ConservationError(RuntimeError):
    """Counts do not add up: in = kept + removed + quarantined does not hold. Always a defect of headrace."""


@dataclass(frozen=True)
class Manifest:
    """What an artifact is and holds.

    Attributes:
        kind: what sort of artifact, such as ``documents``.
        version: the ``VERSION`` of the step class that made it.
        identity: the hash of what determines the artifact's bytes.
        params: the parameters that determined it.
        inputs: role -> identity of each input artifact.
        shards: one ``{"name", "rows", "bytes", "digest"}`` a shard, in order.
        files: the same for further files.
        counts: the conserved counts, per source where that makes sense.
        extra: what only this kind has to say (ledger, schema, special ids, ...).
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
        """The manifest as it is written: the fields above, with ``extra`` spread beside them."""
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
    """A published artifact, opened for reading. Nothing but the manifest is read until it is asked for."""

    path: Path
    manifest: Manifest

    @staticmethod
    def open(path: Path | str) -> Artifact:
        """Open a published artifact folder.

        Raises:
            UserError: there is no readable manifest in the folder.
        """
        path = Path(path)
        try:
            value = read_json(path / MANIFEST)
            assert isinstance(value, dict)
            return Artifact(path, Manifest.from_json(value))
        except FileNotFoundError:
            raise UserError(
                "This folder is not a finished artifact: it has no manifest.json.",
                str(path),
                "Give a folder under RUN/artifacts; `headrace status RUN` lists the finished ones.",
            ) from None
        except (orjson.JSONDecodeError, KeyError, TypeError, AssertionError) as error:
            raise UserError(f"The manifest cannot be read: {error!r}.", str(path / MANIFEST)) from None

    @property
    def shards(self) -> list[dict[str, Any]]:
        """The manifest's shard entries, in order."""
        return self.manifest.shards

    def shard_path(self, index: int) -> Path:
        """The file of a shard."""
        return self.path / self.manifest.shards[index]["name"]

    def file_path(self, name: str) -> Path:
        """A further file of the artifact, such as ``tokenizer.json``."""
        return self.path / name

    @cached_property
    def row_offsets(self) -> np.ndarray:
        """int64[n_shards + 1]: the dense row id of each shard's first row, and the total."""
        return np.cumsum([0] + [s["rows"] for s in self.manifest.shards], dtype=np.int64)

    @cached_property
    def rows(self) -> int:
        """The number of rows in all shards."""
        return int(self.row_offsets[-1])

    @property
    def bytes(self) -> int:
        """The size of all shards and files on disk."""
        return sum(int(s["bytes"]) for s in (*self.manifest.shards, *self.manifest.files))

    def locate(self, row: int) -> tuple[int, int]:
        """The shard and the row within it of a dense row id."""
        if not 0 <= row < self.rows:
            raise IndexError(f"row {row} of an artifact of {self.rows} rows")
        shard = int(np.searchsorted(self.row_offsets, row, side="right")) - 1
        return shard, row - int(self.row_offsets[shard])
