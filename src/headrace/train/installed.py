"""Check that what training needs is installed, before any work."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable

from headrace.errors import UserError
from headrace.recipe.training import TrainSection

LIBRARIES = ("torch", "safetensors")


def check_installed(sections: Iterable[TrainSection] = ()) -> None:
    """Look for the libraries, without importing them, and for a GPU where only that will do.

    Args:
        sections: how the stages are trained.

    Raises:
        UserError: something is missing.
    """
    sections = list(sections)
    for name in {one.removesuffix("-online") for section in sections for one in section.log}:
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
    if any(section.precision == "fp8" for section in sections):
        from headrace.train.float8 import check

        check()
