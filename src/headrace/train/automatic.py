"""`train.long: auto`, decided for the devices that a training has."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from headrace.environment import memory_limit
from headrace.flow.notices import Notice
from headrace.flow.task import TaskContext
from headrace.memory.choice import chosen
from headrace.memory.machines import Machine
from headrace.memory.shape import Shape
from headrace.recipe.training import TrainSection
from headrace.sequence.store import ArrowSequence
from headrace.train.job import Job

if TYPE_CHECKING:
    from headrace.train.step import Model


def decided(model: Model, run: Path, processes: int, here: int) -> tuple[TrainSection, str | None]:
    """A stage's section as it is trained, and what was decided about it, in a sentence; None if nothing was asked.

    Args:
        model: the stage.
        run: the run folder, with what the stage trains on.
        processes: how many train it, one for each device.
        here: how many of them on this machine.

    Raises:
        UserError: nothing fits.
    """
    if not model.train.long.auto:
        return model.train, None
    ctx = TaskContext(run, model, "train", 0)
    length = ArrowSequence(ctx.input("sequence")).seq_len
    where = f"stages.{model.stage}.train"
    return chosen(model.train, length, Shape.of(model.config(ctx)), at_hand(processes, here), where)


def at_hand(processes: int, here: int) -> Machine:
    """The devices of a training: all like this process's. Not what is free of them, which changes from run to run."""
    import psutil

    host = min(psutil.virtual_memory().total, memory_limit() or 1 << 62)
    nodes = max(1, processes // here)
    if torch.cuda.is_available():
        own = torch.cuda.get_device_properties(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
        return Machine(own.name, own.total_memory, True, here, nodes, host)
    return Machine("CPU", host, False, here, nodes, host)


def announced(job: Job, section: TrainSection, why: str | None, aloud: bool = True) -> Job:
    """A job with the section that was decided; a notice tells why, if ``aloud``."""
    if why is not None and aloud:
        warnings.warn(f"Stage {job.stage}: {why}", Notice, stacklevel=2)
    return replace(job, section=section, chosen=why)
