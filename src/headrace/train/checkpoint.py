"""Checkpoints: folders that are either complete or ignored, and contain nothing that must be unpickled.

    step-00000100/
        model/shard-00001-....safetensors      float32 weights by name, one file a process
        optimizer/shard-00001-....safetensors  moments by parameter name
        state.json                             step, rows, totals, spans, and the size and digest of each file;
                                               written last: its presence marks the checkpoint as complete

They are written with torch's distributed checkpoint (DCP) as safetensors: each process writes what it holds, and any
number of processes reads it back. A checkpoint is first copied to memory, then written in the background under a
temporary name, flushed to disk, and renamed. If it is damaged later, its digests show it; it is set aside, and training
resumes from the previous one. There is no random state to keep, because nothing in training draws random numbers.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import orjson
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.distributed.checkpoint._hf_utils import CUSTOM_METADATA_KEY, SAVED_OFFSETS_KEY
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from headrace.errors import UserError
from headrace.flow.artifact import flaw
from headrace.flow.damage import move_to_damaged
from headrace.flow.mirror import Mirror, mirror_of
from headrace.flow.notices import Notice
from headrace.flow.storage import SealError, digest_file, explaining_os_errors, fsync_folder, read_sealed, write_sealed
from headrace.train.trajectory import MODEL, OPTIMIZER, STATE
from headrace.train.world import World

NAME = re.compile(r"step-(\d{8,})")
_INTERRUPTED = re.compile(r"\.step-\d+\.tmp")
T = TypeVar("T")


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

    def files(self, part: str) -> list[Path]:
        """The files of a part, ``model`` or ``optimizer``."""
        return [self.path / entry["name"] for entry in self.state["files"] if entry["name"].startswith(f"{part}/")]


class Saver:
    """Writes the checkpoints of a training, one at a time, in the background.

    Args:
        folder: the trajectory's folder.
        world: the processes.
        keep: checkpoints to keep, the newest.
        keep_every: also keep those of steps divisible by this.
    """

    def __init__(self, folder: Path, world: World, keep: int, keep_every: int | None) -> None:
        self.folder, self.world, self.keep, self.keep_every = folder, world, keep, keep_every
        self._pool = ThreadPoolExecutor(1)
        self._running: Future[Checkpoint] | None = None

    def begin(self, state: dict[str, Any], model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]) -> None:
        """Copy a training's tensors and start to write them; first waits for the checkpoint before.

        Args:
            state: JSON values, including ``step``.
            model: weights by name.
            optimizer: optimizer state by name.

        Raises:
            UserError: the checkpoint before could not be written.
        """
        self.wait()
        parts = {MODEL: staged(model), OPTIMIZER: staged(optimizer)}
        self._running = self._pool.submit(self._write, state, parts)

    def wait(self) -> Checkpoint | None:
        """Wait until the last checkpoint begun is on disk.

        Raises:
            UserError: the disk is full or the folder cannot be written.
        """
        running, self._running = self._running, None
        return None if running is None else running.result()

    def close(self) -> None:
        """Wait for the writer's thread to end."""
        self._pool.shutdown()

    def _write(self, state: dict[str, Any], parts: dict[str, dict[str, Tensor]]) -> Checkpoint:
        final = self.folder / f"step-{state['step']:08d}"
        temporary = self.folder / f".{final.name}.tmp"

        def clear() -> None:
            if self.world.chief:
                shutil.rmtree(temporary, ignore_errors=True)
                for part in parts:
                    (temporary / part).mkdir(parents=True)

        def write() -> list[dict[str, Any]]:
            for part, tensors in parts.items():
                write_part(temporary / part, tensors, self.world.files)
            # torch numbers the processes' files from 1.
            own = sorted(temporary.glob(f"*/shard-{self.world.rank + 1:05d}-*.safetensors"))
            if mirror := mirror_of(final):
                for path in own:
                    mirror.push(final / path.relative_to(temporary), path)
            return [_entry(temporary, path) for path in own]

        def publish() -> None:
            if self.world.chief:
                write_sealed(temporary / STATE, whole)
                if mirror := mirror_of(final):
                    for name, length in state.get("logged", {}).items():
                        _push_beginning(mirror, self.folder / name, length, temporary / ".appended")
                    mirror.push(final / STATE, temporary / STATE)
                if final.is_dir():  # damaged: an intact one would have been resumed from
                    shutil.rmtree(final)
                os.replace(temporary, final)
                fsync_folder(self.folder)
                prune(self.folder, self.keep, self.keep_every)

        try:
            self._together(clear, final)
            files = [one for own in self._together(write, final) for one in own]
            whole = {**state, "files": sorted(files, key=lambda one: str(one["name"]))}
            self._together(publish, final)
        except Exception:
            if self.world.chief:
                shutil.rmtree(temporary, ignore_errors=True)
            raise
        return Checkpoint(final, whole)

    def _together(self, work: Callable[[], T], final: Path) -> list[T]:
        """What each process's part of the work returns; all fail if one does, so that none waits for it."""
        failure, result = None, None
        try:
            with explaining_os_errors(final):
                result = work()
        except Exception as error:
            failure = error
        told = gathered((result, None if failure is None else str(failure)), self.world.files)
        if failure is not None:
            raise failure
        for _, wrong in told:
            if wrong is not None:
                raise UserError("Another process could not write its part of the checkpoint.", str(final), wrong)
        return [result for result, _ in told]


def _entry(folder: Path, path: Path) -> dict[str, Any]:
    return {"name": str(path.relative_to(folder)), "bytes": path.stat().st_size, "digest": digest_file(path)}


def gathered(value: Any, group: dist.ProcessGroup | None) -> list[Any]:
    """Every process's value, in every process."""
    if group is None:
        return [value]
    out: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(out, value, group=group)
    return out


def staged(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of tensors in the processor's memory, sharded as they are."""
    options = StagingOptions(torch.cuda.is_available(), False, False, torch.cuda.is_available())
    stager = DefaultStager(options)
    try:
        copied: dict[str, Tensor] = stager.stage(dict(tensors))  # type: ignore[assignment]
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return copied
    finally:
        stager.close()


def write_part(folder: Path, tensors: Mapping[str, Tensor], group: dist.ProcessGroup | None = None) -> None:
    """Write tensors as safetensors, each process what it holds, flushed to disk."""
    writer = dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    with _quiet():
        dcp.save(dict(tensors), storage_writer=writer, process_group=group, no_dist=group is None)


def whole_file(checkpoint: Checkpoint, part: str, target: Path) -> None:
    """Write a part of a checkpoint as one safetensors file of whole tensors, whose bytes depend on nothing else.

    (torch's own joining keeps a table whose order changes from process to process.)

    Args:
        checkpoint: the checkpoint.
        part: ``model`` or ``optimizer``.
        target: the file to write.
    """
    chunks: dict[str, list[tuple[Path, list[int]]]] = {}
    shapes: dict[str, list[int]] = {}
    for path in checkpoint.files(part):
        with safe_open(path, "np") as f:
            told = orjson.loads(f.metadata()[CUSTOM_METADATA_KEY])
            for name in f.keys():  # noqa: SIM118 (not a dict)
                offsets, shape = told[name][SAVED_OFFSETS_KEY], f.get_slice(name).get_shape()
                chunks.setdefault(name, []).append((path, offsets))
                ends = [a + b for a, b in zip(offsets, shape, strict=True)]
                shapes[name] = [max(pair) for pair in zip(shapes.get(name, ends), ends, strict=True)]
    header, position = {}, 0
    for name in sorted(chunks):
        end = position + 4 * math.prod(shapes[name])
        header[name] = {"dtype": "F32", "shape": shapes[name], "data_offsets": [position, end]}
        position = end
    head = orjson.dumps(header)
    head += b" " * (-len(head) % 8)
    with open(target, "wb") as out:
        out.write(len(head).to_bytes(8, "little") + head)
        for name in sorted(chunks):
            if len(chunks[name]) == 1:
                whole = _chunk(chunks[name][0][0], name)
            else:
                whole = np.empty(shapes[name], dtype=np.float32)
                for path, offsets in chunks[name]:
                    piece = _chunk(path, name)
                    whole[tuple(slice(a, a + b) for a, b in zip(offsets, piece.shape, strict=True))] = piece
            out.write(np.ascontiguousarray(whole).data)


def _chunk(path: Path, name: str) -> np.ndarray:
    with safe_open(path, "np") as f:
        found: np.ndarray = f.get_tensor(name)
    return found


def read_part(source: Path, into: Mapping[str, Tensor], world: World) -> None:
    """Read tensors by name into existing ones, however many processes wrote them.

    Args:
        source: a safetensors file, or a folder of them.
        into: tensors or DTensors, overwritten.
        world: the processes that read together.

    Raises:
        UserError: a tensor is missing or has another shape.
    """
    reader = _Reader(source)
    try:
        sizes = {name: list(told.size) for name, told in reader.read_metadata().state_dict_metadata.items()}  # type: ignore[union-attr]
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise UserError(
            f"The weights cannot be read: {error}.", str(source), "Start from another checkpoint."
        ) from None
    wrong = [
        f"{name} is {sizes.get(name, 'missing')}, expected {list(tensor.shape)}"
        for name, tensor in into.items()
        if sizes.get(name) != list(tensor.shape)
    ]
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise UserError(
            f"The weights do not fit the model: {wrong[0]}{more}.",
            str(source),
            "Start from a checkpoint of a model with the same `model:` section, trained by the same kind of optimizer.",
        )
    with _quiet():
        dcp.load(dict(into), storage_reader=reader, process_group=world.files, no_dist=world.size == 1)


class _Reader(dcp.HuggingFaceStorageReader):
    """torch's reader, for one file too."""

    def __init__(self, source: Path) -> None:
        super().__init__(str(source if source.is_dir() else source.parent))
        if not source.is_dir():
            self.fs.ls = lambda path: [str(source)]  # type: ignore[method-assign]


class _quiet(warnings.catch_warnings):  # noqa: N801 - used as a function
    """torch warns that a single process is a single process."""

    def __enter__(self) -> Any:
        entered = super().__enter__()
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        return entered


def complete(folder: Path) -> list[Checkpoint]:
    """The complete checkpoints of a trajectory's folder, oldest first."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if NAME.fullmatch(path.name):
            try:
                found.append(Checkpoint(path, read_sealed(path / STATE)))
            except (FileNotFoundError, SealError):
                continue
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def newest(folder: Path, run: Path, before: int | None = None) -> Checkpoint | None:
    """The newest complete checkpoint whose files match their digests.

    Damaged ones are moved to ``RUN/damaged``, and a notice says so.

    Args:
        folder: the trajectory's folder.
        run: the run folder.
        before: only those of at most so many steps.
    """
    for found in reversed(complete(folder)):
        if before is not None and found.step > before:
            continue
        wrong = flaws(found)
        if not wrong:
            return found
        target = move_to_damaged(found.path, run)
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


def _push_beginning(mirror: Mirror, path: Path, length: int, copy: Path) -> None:
    """Push a file that the training appends to meanwhile, as far as its checkpoint goes, by way of a copy."""
    shutil.copyfile(path, copy)
    os.truncate(copy, length)
    mirror.push(path, copy)
    copy.unlink()


def prune(folder: Path, keep: int, keep_every: int | None) -> None:
    """Delete all but the newest ``keep`` checkpoints of a trajectory, and those of steps divisible by ``keep_every``;
    also remains of interrupted writes."""
    for checkpoint in complete(folder)[:-keep]:
        if keep_every is None or checkpoint.step % keep_every:
            if mirror := mirror_of(checkpoint.path):
                mirror.remove(checkpoint.path)
            shutil.rmtree(checkpoint.path)
    for path in folder.iterdir():
        if _INTERRUPTED.fullmatch(path.name):
            shutil.rmtree(path)
