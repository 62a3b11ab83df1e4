"""Check that what training needs is installed, before any work."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable

from headrace.errors import UserError

LIBRARIES = ("torch", "safetensors")


def check_installed(log: Iterable[str] = ()) -> None:
    """Look for the libraries, without importing them.

    Args:
        log: who else is told of the training, as ``train.log`` says.

    Raises:
        UserError: one is missing.
    """
    for name in {one.removesuffix("-online") for one in log}:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"The recipe logs to {name}, which is not installed here.",
                "train.log",
                f"{sys.executable} -m pip install {name}; or leave it out of `log`.",
            )
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"The recipe trains a model, which needs {' and '.join(missing)}, not installed here.",
            "model",
            f"{sys.executable} -m pip install 'headrace[train]'; or stop at the sequences with `--set model=null`.",
        )
