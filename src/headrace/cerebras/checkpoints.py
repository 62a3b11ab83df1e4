"""The checkpoints of a ``model_dir``: the newest, all, the one that ``checkpoint_path`` names, and its weights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.cerebras.read import Params
from headrace.cerebras.translate import STAGE
from headrace.flow.storage import SealError, read_sealed
from headrace.recipe.schema import Recipe

if TYPE_CHECKING:
    from headrace.train.checkpoint import Checkpoint

STATE = "state.json"  # what makes a folder one of headrace's checkpoints


def newest_checkpoint(folder: Path, sound: bool = False) -> Checkpoint | None:
    """The newest checkpoint of the training that a ``model_dir`` was used for last; ``sound``: whose files match their
    digests, others being set aside."""
    from headrace.train.checkpoint import complete, newest
    from headrace.train.trajectory import trajectories

    for trajectory in reversed(trajectories(folder, STAGE)):
        if found := complete(trajectory):
            last = newest(trajectory, folder) if sound else found[-1]
            if last is not None:
                return last
    return None


def checkpoints(folder: Path) -> Iterator[Checkpoint]:
    """The complete checkpoints of a ``model_dir``, the newest first; one of each step."""
    from headrace.train.checkpoint import complete
    from headrace.train.trajectory import trajectories

    found: dict[int, Checkpoint] = {}
    for trajectory in trajectories(folder, STAGE):  # the one used last is the last
        found |= {one.step: one for one in complete(trajectory)}
    return (found[step] for step in sorted(found, reverse=True))


def named_checkpoint(params: Params, path: str) -> Path:
    """What ``checkpoint_path`` names: a path, a ``model_dir`` for its newest, or ``model_dir/checkpoint_100.mdl``.

    Raises:
        UserError: the ``model_dir`` has no such checkpoint.
    """
    named = re.fullmatch(r"checkpoint_(\d+)\.mdl", Path(path).name)
    exists = Path(path).exists()
    folder = Path(path) if exists else Path(path).parent
    if exists and not (folder / "checkpoints").is_dir():
        return folder.absolute()
    found = list(checkpoints(folder)) if exists or named else []
    for one in found:
        if exists or (named and one.step == int(named[1])):
            return one.path.absolute()
    steps = ", ".join(str(one.step) for one in found)
    raise params.wrong(
        f"There is no checkpoint {path}.",
        "runconfig.checkpoint_path",
        f"{folder} has those of steps {steps}." if steps else "Give the folder of a checkpoint, or a model_dir.",
    )


def step_of(path: Path) -> int:
    """The step of a checkpoint; 0 for weights alone."""
    try:
        return int(read_sealed(path / STATE)["step"])
    except (OSError, SealError, KeyError):
        return 0


def load_model(recipe: Recipe, path: Path) -> Any:
    """The model of a recipe with the weights of a checkpoint, on this machine's device."""
    from headrace.model.build import build, dtype_of
    from headrace.model.machine import device, prepare
    from headrace.model.presets import resolve
    from headrace.train.checkpoint import read_part
    from headrace.train.outside import look
    from headrace.train.world import World

    prepare()
    assert recipe.model is not None
    start = look(path, "checkpoint_path", False, False, lambda paths: [""] * len(paths)).start()
    train = recipe.stages[0].train
    model = build(resolve(recipe.model, None), dtype_of(train.precision, device()))
    assert start.model is not None
    if (start.model / "config.json").is_file():
        from headrace.model.huggingface.reading import Stored

        Stored.open(start.model).load(model)
    else:
        read_part(start.model, model.state_dict(), World())
    return model.to(device())
