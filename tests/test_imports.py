"""Imports point one way: from layer to layer down the flow, and never round in a circle."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
# From the bottom up; a layer may import those before it. docs/design.md says what each holds.
LAYERS = [
    "visible",
    "nesting",
    "errors",
    "environment",
    "spdx",
    "flow",
    "functions",
    "recipe",
    "documents",
    "select",
    "tokens",
    "sequence",
    "model",
    "memory",
    "evaluate",
    "annotate",
    "synthetic",
    "train",
    "report",
    "formats",
    "named_files",
    "graph",
    "run_folder",
    "mapped",
    "tables",
    "opened",
    "references",
    "preflight",
    "launched",
    "pipeline",
    "cerebras",
    "planning",
    "model_export",
    "export",
    "evaluation",
    "long_evaluation",
    "perplexity",
    "ablations",
    "mup",
    "inquiry",
    "ledger",
    "spikes",
    "leftovers",
    "withdrawal",
    "verification",
    "doctor",
    "view",
    "cli",
    "reference",
]


def modules() -> dict[str, Path]:
    found = {}
    for path in SRC.rglob("*.py"):
        parts = path.relative_to(SRC).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def local(body: list[ast.stmt]) -> set[int]:
    """The statements inside functions."""
    functions = [node for node in ast.walk(ast.Module(body, [])) if isinstance(node, ast.FunctionDef)]
    return {id(inner) for function in functions for inner in ast.walk(function)}


@cache
def imports(name: str, inside_functions: bool) -> set[str]:
    """The modules of ours that a module imports, for typing alone too."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    skipped = set() if inside_functions else local(tree.body)
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("headrace"):
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {one if one in MODULES else node.module for one in full}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in MODULES}
    return found - {name, "headrace"}  # the package itself has the version, and names for users


def layer(name: str) -> str:
    return name.split(".")[1]


@pytest.mark.parametrize("name", sorted(name for name in MODULES if name not in ("headrace", "headrace.__main__")))
def test_a_layer_imports_only_those_below_it(name):
    assert layer(name) in LAYERS, "say in LAYERS where the new layer stands"
    above = {other for other in imports(name, True) if LAYERS.index(layer(other)) > LAYERS.index(layer(name))}
    assert not above


def test_no_import_goes_round_in_a_circle():
    graph = {name: imports(name, False) for name in MODULES if name != "headrace"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_every_file_of_tests_has_its_own_name():
    """Pytest imports them by their names alone: of two with one name, whatever comes first is there for both."""
    names = Counter(path.name for path in Path(__file__).parent.rglob("*.py") if path.name != "conftest.py")
    assert not [name for name, files in names.items() if files > 1]
