"""Check that what training needs is installed, before any work."""

from __future__ import annotations

import importlib.util
import sys

from headrace.errors import UserError

LIBRARIES = ("torch", "safetensors")


def check_installed() -> None:
    """Look for the libraries, without importing them.

    Raises:
        UserError: one is missing.
    """
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"The recipe trains a model, which needs {' and '.join(missing)}, not installed here.",
            "model",
            f"{sys.executable} -m pip install 'headrace[train]'; or stop at the sequences with `--set model=null`.",
        )
