"""Who is told of each logged step of a training: the log, and by option TensorBoard and Weights & Biases.

Only rank 0 has observers. Each is told the same two things: a step's line, as :mod:`headrace.train.metrics` writes it,
and what was measured of the model after a step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Observer(ABC):
    """Is told of a training's steps."""

    @abstractmethod
    def add(self, values: dict[str, Any], times: dict[str, float]) -> None:
        """A logged step: what it came to, and what that took of the machine."""

    @abstractmethod
    def evaluated(self, values: dict[str, Any]) -> None:
        """What was measured after ``values["step"]``."""

    @abstractmethod
    def close(self) -> None:
        """No more will follow."""


def scalars(values: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of a line as ``a/b/c`` and value; the step itself is not one of them."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from ((f"{key}/{name}", number) for name, number in scalars(value))
        elif isinstance(value, int | float) and key != "step":
            yield key, float(value)


class TensorBoard(Observer):
    """Event files for TensorBoard.

    Args:
        folder: where to write them.
        step: the step after which this training begins or goes on; what was logged after it will be logged again, and
            TensorBoard drops the earlier values.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def add(self, values: dict[str, Any], times: dict[str, float]) -> None:
        """Write a step's numbers."""
        self._write("train", values, values["step"])
        self._write("machine", times, values["step"])

    def evaluated(self, values: dict[str, Any]) -> None:
        """Write what was measured."""
        self._write("evaluation", values, values["step"])
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

    def _write(self, prefix: str, values: dict[str, Any], step: int) -> None:
        for name, number in scalars(values):
            self._writer.add_scalar(f"{prefix}/{name}", number, step)


class Wandb(Observer):
    """A run of Weights & Biases: on this disk, or online if the recipe says so. ``wandb sync`` sends one from disk.

    The run's id is the trajectory's identity, so a resumed training goes on in the same run; steps that it repeats are
    the same. The console, the code, the machine and its use are not recorded.

    Args:
        folder: in whose folder ``wandb`` to write.
        identity: the trajectory's.
        stage: the stage's name.
        config: what the training is, as JSON.
        online: whether to send it.
    """

    def __init__(self, folder: Path, identity: str, stage: str, config: dict[str, Any], online: bool) -> None:
        import wandb

        settings = wandb.Settings(
            mode="online" if online else "offline",
            console="off",
            disable_code=True,
            disable_git=True,
            silent=True,
            host="headrace",
            x_disable_machine_info=True,
            x_disable_stats=True,
            x_disable_meta=True,
            x_save_requirements=False,
        )
        self._run = wandb.init(
            project="headrace",
            dir=str(folder),
            id=identity,
            name=f"{stage} {identity}",
            config=config,
            resume="allow" if online else None,
            settings=settings,
        )

    def add(self, values: dict[str, Any], times: dict[str, float]) -> None:
        """Log a step's numbers."""
        named = {f"train/{name}": number for name, number in scalars(values)}
        named |= {f"machine/{name}": number for name, number in scalars(times)}
        self._run.log(named, step=values["step"])

    def evaluated(self, values: dict[str, Any]) -> None:
        """Log what was measured."""
        self._run.log({f"evaluation/{name}": number for name, number in scalars(values)}, step=values["step"])

    def close(self) -> None:
        """Write what is left."""
        self._run.finish()


def asked(
    run: Path, stage: str, identity: str, config: dict[str, Any], log: tuple[str, ...], step: int
) -> list[Observer]:
    """The observers that a recipe asks for under ``train.log``.

    Args:
        run: the run folder.
        stage: the stage's name.
        identity: the trajectory's.
        config: what the training is, as JSON.
        log: the recipe's key.
        step: steps done before.
    """
    found: list[Observer] = []
    if "tensorboard" in log:
        found.append(TensorBoard(run / "tensorboard" / stage / identity, step))
    if {"wandb", "wandb-online"} & set(log):
        found.append(Wandb(run, identity, stage, config, "wandb-online" in log))
    return found
