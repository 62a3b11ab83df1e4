"""headrace: from raw corpora to the exact token sequence that a language model trains on, and the training itself.

The Python API mirrors the command line::

    recipe = headrace.load_recipe("recipes/demo.yaml")
    print(headrace.plan(recipe))
    headrace.run(recipe, "runs/demo")
    sequence = headrace.open_sequence("runs/demo", "stage1")
    for batch in headrace.Loader(sequence, batch=16):
        ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.errors import UserError
    from headrace.flow.executors.engine import Engine
    from headrace.functions.decorators import per_batch, per_document
    from headrace.functions.document import Document
    from headrace.opened import open_run
    from headrace.pipeline import run
    from headrace.planning.forecast import plan
    from headrace.recipe.load import load_recipe
    from headrace.recipe.schema import Recipe
    from headrace.run_folder import open_sequence
    from headrace.sequence.loader import Loader
    from headrace.sequence.torch_dataset import TorchDataset
    from headrace.tables import open_documents, to_dataset

__version__ = "0.1.0"
__all__ = [
    "Document", "Engine", "Loader", "Recipe", "TorchDataset", "UserError", "load_recipe", "open_documents", "open_run",
    "open_sequence", "per_batch", "per_document", "plan", "run", "to_dataset",
]  # fmt: skip

_HOMES = {
    "Document": "headrace.functions.document",
    "Engine": "headrace.flow.executors.engine",
    "Loader": "headrace.sequence.loader",
    "Recipe": "headrace.recipe.schema",
    "TorchDataset": "headrace.sequence.torch_dataset",
    "UserError": "headrace.errors",
    "load_recipe": "headrace.recipe.load",
    "open_documents": "headrace.tables",
    "open_run": "headrace.opened",
    "open_sequence": "headrace.run_folder",
    "per_batch": "headrace.functions.decorators",
    "per_document": "headrace.functions.decorators",
    "plan": "headrace.planning.forecast",
    "run": "headrace.pipeline",
    "to_dataset": "headrace.tables",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that importing headrace costs nothing."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'headrace' has no attribute {name!r}")
