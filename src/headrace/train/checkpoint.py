"""Checkpoints: folders that are either complete or ignored, and contain nothing that must be unpickled.

    RUN/checkpoints/<stage>/step-00000100/
        model.safetensors      float32 weights by name
        optimizer.safetensors  moments by parameter name
        metrics.jsonl          the log up to here
        state.json             step, loader state, totals, and the size and digest of each file; written last: its
                               presence marks the checkpoint as complete

A checkpoint is written under a temporary name, flushed to disk, and renamed. If it is damaged later, its digests show
it; it is set aside, and training resumes from the previous one. There is no random state to keep, because nothing in
training draws random numbers.
"""

from __future__ import annotations

import os
import re
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from headrace.flow.artifact import flaw
from headrace.flow.damage import move_to_damaged
from headrace.flow.notices import Notice
from headrace.flow.storage import SealError, digest_file, explaining_os_errors, fsync_folder, read_sealed, write_sealed
from headrace.train import metrics

STATE = "state.json"
_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk.

    Attributes:
        path: its folder.
        state: the contents of ``state.json``.
    """

    path: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        """Steps done when it was written."""
        return int(self.state["step"])

    def model(self) -> dict[str, Tensor]:
        """Weights by parameter name, on the CPU."""
        return load_file(self.path / "model.safetensors")

    @property
    def metrics(self) -> Path:
        """The log up to this step."""
        return self.path / metrics.FILE

    def optimizer(self) -> dict[str, Tensor]:
        """Optimizer state by name, on the CPU."""
        return load_file(self.path / "optimizer.safetensors")


def save(folder: Path, state: dict[str, Any], model: dict[str, Tensor], optimizer: dict[str, Tensor]) -> Checkpoint:
    """Write a checkpoint: all of it or, if the process dies midway, nothing that counts.

    The stage's log in ``folder`` is copied into it.

    Args:
        folder: the stage's folder.
        state: JSON values, including ``step``.
        model: weights by name.
        optimizer: optimizer state by name.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    final = folder / f"step-{state['step']:08d}"
    temporary = folder / f".{final.name}.{os.getpid()}.tmp"
    with explaining_os_errors(final):
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            for name, tensors in (("model", model), ("optimizer", optimizer)):
                write_tensors(temporary / f"{name}.safetensors", tensors)
            if (folder / metrics.FILE).exists():
                shutil.copyfile(folder / metrics.FILE, temporary / metrics.FILE)
            files = [
                {"name": path.name, "bytes": path.stat().st_size, "digest": digest_file(path)}
                for path in sorted(temporary.iterdir())
            ]
            state = {**state, "files": files}
            write_sealed(temporary / STATE, state)
            if final.exists():  # left by a run with other parameters, or incomplete
                shutil.rmtree(final)
            os.replace(temporary, final)
            fsync_folder(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return Checkpoint(final, state)


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file and flush it to disk."""
    path.touch()
    mode = path.stat().st_mode  # per the user's umask; safetensors creates files that only the user can read
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    path.chmod(mode)
    with open(path, "rb+") as f:
        os.fsync(f.fileno())


def complete(folder: Path, identity: str) -> list[Checkpoint]:
    """The complete checkpoints of a stage, oldest first.

    Args:
        folder: the stage's folder.
        identity: the training step's identity; checkpoints with other parameters or data do not count.
    """
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if not _NAME.fullmatch(path.name):
            continue
        try:
            state = read_sealed(path / STATE)
        except (FileNotFoundError, SealError):
            continue
        if state.get("identity") == identity:
            found.append(Checkpoint(path, state))
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def newest(folder: Path, identity: str) -> Checkpoint | None:
    """The newest complete checkpoint of a stage whose files match their digests.

    Damaged ones are moved to ``RUN/damaged``, and a notice says so.

    Args:
        folder: the stage's folder, ``RUN/checkpoints/<stage>``.
        identity: as for :func:`complete`.
    """
    for found in reversed(complete(folder, identity)):
        wrong = flaws(found)
        if not wrong:
            return found
        target = move_to_damaged(found.path, folder.parent.parent)
        warnings.warn(
            f"The checkpoint of step {found.step} is damaged: {wrong[0]}. It has been moved to {target}; training "
            "resumes from the previous one, or from the start of the stage.",
            Notice,
            stacklevel=2,
        )
    return None


def flaws(checkpoint: Checkpoint) -> list[str]:
    """What is wrong with the files of a checkpoint, in words."""
    found = ((entry["name"], flaw(checkpoint.path / entry["name"], entry)) for entry in checkpoint.state["files"])
    return [f"{name} {wrong}" for name, wrong in found if wrong is not None]


def prune(folder: Path, identity: str, keep: int) -> None:
    """Delete all but the newest ``keep`` checkpoints of this identity, those of others, and remains of interrupted
    writes."""
    kept = {checkpoint.path for checkpoint in complete(folder, identity)[-keep:]}
    for path in folder.iterdir():
        if path not in kept and (_NAME.fullmatch(path.name) or re.fullmatch(r"\.step-\d+\.\d+\.tmp", path.name)):
            shutil.rmtree(path)
