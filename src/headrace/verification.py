"""Verify that everything in a run folder is as it was written, by reading all of it. Nothing is locked or changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace import run_folder
from headrace.documents.inventory import FINGERPRINTS
from headrace.errors import UserError
from headrace.flow.artifact import MANIFEST, Artifact, Entry
from headrace.flow.damage import find_damaged, flaws
from headrace.flow.lock import locked
from headrace.flow.storage import SealError, read_sealed
from headrace.flow.task import TaskContext

_STATE = "state.json"  # a checkpoint's (:mod:`headrace.train.checkpoint`, which would import torch)


@dataclass
class Verification:
    """The result of a verification.

    Attributes:
        files: the number of files compared with their digests.
        bytes: their total size.
        damaged: ``{"file", "what"}``: a path and what is wrong with it, in words.
        notes: worth knowing, but not damage.
    """

    files: int = 0
    bytes: int = 0
    damaged: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values, and ``sound``: whether nothing is damaged."""
        told = {"files": self.files, "bytes": self.bytes, "damaged": self.damaged, "notes": self.notes}
        return {"sound": not self.damaged, **told}

    def add(self, path: Path, what: str) -> None:
        """Record damage."""
        self.damaged.append({"file": str(path), "what": what})

    def compare(self, folder: Path, entries: list[Entry]) -> None:
        """Compare files of a folder with what was recorded."""
        self.files += len(entries)
        self.bytes += sum(int(entry["bytes"]) for entry in entries)
        for path, wrong in flaws((folder / str(entry["name"]), entry) for entry in entries):
            self.add(path, wrong)


def examine(run: Path) -> Verification:
    """Read every file of a run that has a recorded digest, and every file that contains its own.

    Artifacts of earlier versions of the recipe are read too; of unfinished artifacts, the finished files, unless a run
    is working on them.

    Args:
        run: the run folder.

    Raises:
        UserError: the folder is not a run.
    """
    if not (run / run_folder.RECIPE).exists() and not (run / "artifacts").is_dir():
        run_folder.read_recipe(run)  # raises if not a run
    found = Verification()
    graph = _kept(run, found)
    for folder in sorted((run / "artifacts").iterdir()) if (run / "artifacts").is_dir() else ():
        if folder.suffix not in (".partial", ".removing") and not folder.name.startswith("."):
            _artifact(folder, found)
    if locked(run):
        found.notes.append("A run is active in this folder: its unfinished artifacts were not checked.")
    else:
        for step in graph:
            for path, wrong, _ in find_damaged(step, TaskContext(run, step)):
                found.add(path, wrong)
    for folder in sorted((run / "checkpoints").glob("*/*/step-*")):
        _checkpoint(folder, found)
    return found


def _kept(run: Path, found: Verification) -> list[Any]:
    """Check the run's record of its recipe and input; returns the steps, if they can be determined."""
    try:
        read_sealed(run / FINGERPRINTS)
    except FileNotFoundError:
        pass
    except SealError:
        found.add(run / FINGERPRINTS, "has changed since it was written; the next run rebuilds it")
    try:
        recipe = run_folder.read_recipe(run)
    except UserError as error:
        found.add(run / run_folder.RECIPE, error.what)
        return []
    try:
        run_folder.read_input(recipe, run)
        return run_folder.targets(run)
    except UserError as error:
        found.damaged.append({"file": error.where, "what": error.what})
        return []


def _artifact(folder: Path, found: Verification) -> None:
    try:
        artifact = Artifact.open(folder)
    except UserError as error:
        found.add(folder / MANIFEST, error.what)
        return
    if not folder.name.endswith(f"-{artifact.manifest.identity[:8]}"):
        found.add(folder / MANIFEST, f"belongs to another folder, that of {artifact.manifest.identity}")
    found.files += 1
    found.bytes += (folder / MANIFEST).stat().st_size
    found.compare(folder, artifact.entries)
    known = {MANIFEST, *(str(entry["name"]) for entry in artifact.entries)}
    strange = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    for name in strange:
        if name not in known:
            found.notes.append(f"{folder / name} does not belong to this artifact.")


def _checkpoint(folder: Path, found: Verification) -> None:
    try:
        state = read_sealed(folder / _STATE)
    except (FileNotFoundError, SealError):
        found.add(folder / _STATE, "is missing or has changed since it was written")
        return
    found.compare(folder, state["files"])
