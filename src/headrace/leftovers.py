"""Files in a run folder that its recipe does not need: find them with their sizes, and delete them on request."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headrace import run_folder
from headrace.errors import UserError
from headrace.flow.lock import lock
from headrace.flow.mirror import mirror_of
from headrace.flow.step import Step
from headrace.flow.storage import fsync_folder
from headrace.train.trajectory import read_trajectory

Kind = Literal["artifact", "unfinished artifact", "damaged artifact", "checkpoint", "training log", "remnant"]
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
        UserError: the folder is not a run, or the mirror of one.
    """
    if mirror := mirror_of(run):
        fix = "Delete folders under artifacts/ that its recipe does not need with the storage's own tools."
        raise UserError("Runs at a URL are not cleaned.", mirror.url, fix)
    steps = run_folder.read_graph(run).all()
    names = {step.name for step in steps}
    found: list[tuple[Path, Kind]] = [(path, "damaged artifact") for path in _inside(run / "damaged")]
    for path in _inside(run / "artifacts"):
        if path.name.startswith(".") or path.name.endswith(REMNANT):
            found.append((path, "remnant"))
        elif path.name.removesuffix(PARTIAL) not in names:
            found.append((path, "unfinished artifact" if path.name.endswith(PARTIAL) else "artifact"))
    if checkpoints:
        used = _trajectories(run, steps)
        kinds: tuple[tuple[str, Kind], ...] = (("checkpoints", "checkpoint"), ("tensorboard", "training log"))
        for base, kind in kinds:
            for stage in _inside(run / base):
                known = {path.name for path in used if path.parent.name == stage.name}
                found += [(path, kind) for path in _inside(stage) if path.is_dir() and path.name not in known]
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


def _trajectories(run: Path, steps: list[Step]) -> set[Path]:
    """The folders of trainings that the recipe describes, and of those that they continue."""
    from headrace.train.step import Model

    used = set()
    for step in steps:
        if isinstance(step, Model):
            folder: Path | None = step.folder(run)
            while folder is not None:
                used.add(folder)
                before = read_trajectory(folder)
                after = None if before is None else before.after
                folder = None if after is None else folder.with_name(str(after["trajectory"]))
    return used


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
