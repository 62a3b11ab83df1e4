"""The data loader's state in ``cerebras.save_iter_state_path``, as the Model Zoo 1.9 keeps it beside checkpoints.

``data_iter_state_file_worker_{worker}_step_{step}.txt`` holds the samples that a worker had streamed by a step, and
``data_iter_checkpoint_state_file_global`` the step of the last checkpoint. Where a training begins, the samples of all
workers at that step are passed over (``h5_map_dataset/dataset.py``).
"""

from __future__ import annotations

import re
from pathlib import Path

from headrace.errors import UserError
from headrace.flow.storage import replacing

GLOBAL = "data_iter_checkpoint_state_file_global"
_MOST = 32  # bytes of a file that holds a number


def _worker(worker: int, step: int) -> str:
    return f"data_iter_state_file_worker_{worker}_step_{step}.txt"


def streamed(folder: Path) -> int:
    """The samples that were streamed by the last checkpoint; 0 if the folder says nothing.

    Raises:
        UserError: a file holds no number, or those of its step are missing.
    """
    if not (folder / GLOBAL).is_file():
        return 0
    step = _number(folder / GLOBAL)
    files = [file for file in folder.glob(f"data_iter_state_file_worker_*_step_{step}.txt") if file.is_file()]
    if not files:
        raise UserError(
            f"There is no loader state of step {step}.",
            str(folder),
            f"Set {GLOBAL} to a step that has one, or remove it to begin with the first row.",
        )
    return sum(_number(file) for file in files)


def write(folder: Path, step: int, samples: int) -> bool:
    """Record the samples streamed by the checkpoint of a step; False if there is no such folder, nor one to make it in.

    Args:
        folder: the path in the file.
        step: of the checkpoint.
        samples: rows consumed by then.
    """
    if not folder.is_dir():
        if not folder.parent.is_dir():
            return False
        folder.mkdir()
    for name, value in ((_worker(0, step), samples), (GLOBAL, step)):
        with replacing(folder / name) as path:
            path.write_text(f"{value}\n")
    return True


def _number(path: Path) -> int:
    with open(path, "rb") as file:
        text = file.read(_MOST).strip()
    if not re.fullmatch(rb"\d{1,18}", text):
        raise UserError("The loader's state is no number.", str(path), "Remove the file, or restore it.")
    return int(text)
