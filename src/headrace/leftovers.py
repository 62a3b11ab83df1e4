"""Files in a run folder that its recipe does not need: find them with their sizes, and delete them on request."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson

from headrace import run_folder
from headrace.flow.lock import lock
from headrace.flow.storage import fsync_folder, read_json

Kind = Literal["artifact", "unfinished artifact", "damaged artifact", "checkpoint", "remnant"]
PARTIAL = ".partial"
REMNANT = ".removing"  # a folder being deleted; a kill may leave one


@dataclass(frozen=True)
class Leftover:
    """A folder that can be deleted.

    Attributes:
        path: the folder or file.
        kind: what it is.
        bytes: what deleting it frees; files with several hard links count with the last of them.
    """

    path: Path
    kind: Kind
    bytes: int


def find(run: Path, checkpoints: bool = False) -> list[Leftover]:
    """What the run's recipe does not need, by path.

    Args:
        run: the run folder.
        checkpoints: include those of training that the recipe does not describe, which no run could reproduce exactly.

    Raises:
        UserError: the folder is not a run.
    """
    steps = run_folder.read_graph(run).all()
    names = {step.name for step in steps}
    found: list[tuple[Path, Kind]] = [(path, "damaged artifact") for path in _inside(run / "damaged")]
    for path in _inside(run / "artifacts"):
        if path.name.startswith(".") or path.name.endswith(REMNANT):
            found.append((path, "remnant"))
        elif path.name.removesuffix(PARTIAL) not in names:
            found.append((path, "unfinished artifact" if path.name.endswith(PARTIAL) else "artifact"))
    if checkpoints:
        identities = {step.identity for step in steps if step.kind == "model"}
        for stage in _inside(run / "checkpoints"):
            found += [(path, "checkpoint") for path in _inside(stage) if _identity(path) not in identities | {None}]
    sizes = _freed([path for path, _ in found])
    return sorted((Leftover(p, k, sizes[p]) for p, k in found), key=lambda leftover: leftover.path)


def remove(run: Path, leftovers: list[Leftover]) -> None:
    """Delete leftovers; none is ever seen half-deleted under its own name.

    Raises:
        UserError: a run is using the folder.
    """
    with lock(run):
        # A run may have started to use one of them since they were found.
        still = {leftover.path for leftover in find(run, checkpoints=True)}
        for leftover in leftovers:
            if leftover.path not in still:
                continue
            path = leftover.path
            if not path.name.endswith(REMNANT):
                path = path.rename(path.with_name(f"{path.name}{REMNANT}"))
                fsync_folder(path.parent)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _inside(folder: Path) -> Iterator[Path]:
    return iter(sorted(folder.iterdir())) if folder.is_dir() else iter(())


def _identity(checkpoint: Path) -> str | None:
    """The identity of the step that a checkpoint belongs to; None if it is not a complete checkpoint."""
    try:
        state = read_json(checkpoint / "state.json")
    except (OSError, orjson.JSONDecodeError):
        return None
    return state.get("identity") if isinstance(state, dict) else None


def _freed(paths: list[Path]) -> dict[Path, int]:
    """Bytes freed by each path if they are deleted in this order."""
    gone: Counter[tuple[int, int]] = Counter()
    freed = {}
    for path in paths:
        freed[path] = 0
        for folder, _, names in os.walk(path) if path.is_dir() else [(str(path.parent), [], [path.name])]:
            for name in names:
                about = os.lstat(os.path.join(folder, name))
                gone[about.st_dev, about.st_ino] += 1
                if gone[about.st_dev, about.st_ino] == about.st_nlink:
                    freed[path] += about.st_size
    return freed
