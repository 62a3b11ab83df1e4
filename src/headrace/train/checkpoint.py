"""Checkpoints: folders that are either complete or ignored, with nothing in them that would have to be unpickled.

    RUN/checkpoints/<stage>/step-00000100/
        model.safetensors      float32 weights by name
        optimizer.safetensors  moments by parameter name
        state.json             step, the loader's state, totals; written last: its presence is the mark of completeness

A checkpoint is written under a temporary name, flushed to disk, and renamed. There is no random-number state to keep:
nothing in training draws.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from safetensors.torch import load_file, save_file
from torch import Tensor

from headrace.flow.storage import disk_refusal, fsync_folder, read_json, write_json

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
        """Steps that were done when it was written."""
        return int(self.state["step"])

    def model(self) -> dict[str, Tensor]:
        """Weights by parameter name, on the CPU."""
        return load_file(self.path / "model.safetensors")

    def optimizer(self) -> dict[str, Tensor]:
        """Optimiser state by name, on the CPU."""
        return load_file(self.path / "optimizer.safetensors")


def save(folder: Path, state: dict[str, Any], model: dict[str, Tensor], optimizer: dict[str, Tensor]) -> Checkpoint:
    """Write a checkpoint: all of it or, if the process dies on the way, nothing that counts.

    Args:
        folder: of the stage.
        state: JSON values, ``step`` among them.
        model: weights by name.
        optimizer: optimiser state by name.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    final = folder / f"step-{state['step']:08d}"
    temporary = folder / f".{final.name}.{os.getpid()}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, tensors in (("model", model), ("optimizer", optimizer)):
            write_tensors(temporary / f"{name}.safetensors", tensors)
        write_json(temporary / STATE, state)
        if final.exists():  # left by a run with other parameters, or incomplete
            shutil.rmtree(final)
        os.replace(temporary, final)
        fsync_folder(folder)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        refusal = disk_refusal(error, final)
        if refusal is not None:
            raise refusal from error
        raise
    return Checkpoint(final, state)


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file and flush it to disk."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    with open(path, "rb+") as f:
        os.fsync(f.fileno())


def complete(folder: Path, identity: str) -> list[Checkpoint]:
    """The complete checkpoints of a stage, oldest first.

    Args:
        folder: of the stage.
        identity: of the step that trains it: checkpoints of other parameters or data do not count.
    """
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if not _NAME.fullmatch(path.name):
            continue
        try:
            state = read_json(path / STATE)
        except (FileNotFoundError, NotADirectoryError, orjson.JSONDecodeError):
            continue
        if isinstance(state, dict) and state.get("identity") == identity:
            found.append(Checkpoint(path, state))
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def prune(folder: Path, identity: str, keep: int) -> None:
    """Remove all but the newest ``keep`` checkpoints of this identity, those of others, and what broken writes left."""
    kept = {checkpoint.path for checkpoint in complete(folder, identity)[-keep:]}
    for path in folder.iterdir():
        if path not in kept and (_NAME.fullmatch(path.name) or re.fullmatch(r"\.step-\d+\.\d+\.tmp", path.name)):
            shutil.rmtree(path)
