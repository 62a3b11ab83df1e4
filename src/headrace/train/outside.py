"""Checkpoints that a stage starts from though its run did not make them: headrace's own, or models of others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from headrace.errors import UserError
from headrace.flow.artifact import flaw
from headrace.flow.storage import SealError, read_sealed
from headrace.train.trajectory import MODEL, OPTIMIZER, STATE

if TYPE_CHECKING:
    from headrace.train.job import Start

PICKLED = (".mdl", ".pt", ".pth", ".bin", ".ckpt")


@dataclass(frozen=True)
class Outside:
    """What a stage starts from.

    Attributes:
        path: a checkpoint's folder, a model's folder, or a safetensors file; never part of an identity.
        digest: of the weights' files.
        resume: whether to go on from its step, with its optimizer, in the data too; of headrace's checkpoints alone.
        carry: whether to take its optimizer's state.
        trajectory, step, rows: of a checkpoint that is gone on from.
    """

    path: str
    digest: str
    resume: bool = False
    carry: bool = False
    trajectory: str = ""
    step: int = 0
    rows: int = 0

    @property
    def after(self) -> dict[str, Any] | None:
        """The trajectory that is continued."""
        told = {"trajectory": self.trajectory, "step": self.step, "rows": self.rows}
        return told if self.resume else None

    def identity(self) -> dict[str, Any]:
        """What of it decides which weights come out."""
        return self.after or {"digest": self.digest, "carry": self.carry}

    def start(self) -> Start:
        """Where the tensors are.

        Raises:
            UserError: they have changed, or are damaged.
        """
        from headrace.train.job import Start

        path = Path(self.path)
        if not (path / STATE).is_file():
            return Start(path)
        state = _state(path)
        for entry in state["files"]:
            wrong = flaw(path / entry["name"], entry)
            if wrong is not None:
                raise UserError(f"The checkpoint is damaged: {entry['name']} {wrong}.", str(path), "Take another one.")
        moments = path / OPTIMIZER if self.resume or self.carry else None
        return Start(path / MODEL, moments, state["totals"] if self.resume else None)


def look(path: Path, place: str, resume: bool, carry: bool, digests: Callable[[Sequence[Path]], list[str]]) -> Outside:
    """Find what a stage starts from.

    Args:
        path: a checkpoint's folder, a model's folder, or a safetensors file.
        place: the recipe's key, for errors.
        resume: whether to go on from its step.
        carry: whether to take its optimizer's state.
        digests: finds the digests of files.

    Raises:
        UserError: there is none, it is damaged, or it does not hold what is asked for.
    """
    where = f"{place}: {path}"
    if path.suffix in PICKLED and path.is_file():
        raise UserError(
            "Checkpoints in pickle can run any code when they are read, and are not read.",
            where,
            "Convert it to safetensors, or name one of headrace's own checkpoints.",
        )
    if not path.exists():
        raise UserError("There is no such checkpoint.", where, "Give the folder of a checkpoint or of a model.")
    if (path / STATE).is_file():
        state = _state(path)
        told = [f"{one['name']} {one['digest']}" for one in state["files"] if one["name"].startswith(f"{MODEL}/")]
        at = (state["trajectory"], state["step"], state["rows"])
        return Outside(str(path), _hash(told), resume, carry, *at)
    if resume or carry:
        raise UserError(
            "These are weights alone, without a step and an optimizer's state.",
            where,
            "Name one of headrace's checkpoints, or start from the weights without these.",
        )
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    if not files or not all(file.suffix == ".safetensors" for file in files):
        raise UserError("There are no weights in safetensors.", where, "Give the folder of a checkpoint or of a model.")
    if path.is_dir() and not (path / "config.json").is_file():
        raise UserError("The model has no config.json.", where, "Give the folder of a model, or its file.")
    described = [*files, *([path / "config.json"] if path.is_dir() else [])]
    return Outside(str(path), _hash(digests(described)))


def _state(path: Path) -> dict[str, Any]:
    try:
        state = read_sealed(path / STATE)
    except SealError:
        raise UserError("The checkpoint is damaged.", str(path / STATE), "Take another one.") from None
    if not {"files", "trajectory", "step", "rows", "totals"} <= state.keys():
        raise UserError("Another version of headrace made this checkpoint.", str(path), "Take another one.")
    return state


def _hash(lines: Sequence[str]) -> str:
    return xxhash.xxh3_128_hexdigest("\n".join(lines).encode())
