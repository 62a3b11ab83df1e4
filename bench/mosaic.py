"""mosaicml-streaming without torchvision, which it imports for the images that it also streams."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from typing import Any


def streaming() -> Any:
    """The package ``streaming.base``; the package above it, which imports the rest, is left empty.

    Raises:
        ImportError: it is not installed.
    """
    if "streaming" not in sys.modules:
        found = importlib.util.find_spec("streaming")
        if found is None:
            raise ImportError("mosaicml-streaming is not installed")
        package = types.ModuleType("streaming")
        package.__path__ = list(found.submodule_search_locations or ())
        sys.modules["streaming"] = package
    return importlib.import_module("streaming.base")
