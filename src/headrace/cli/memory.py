"""``headrace memory``: how much memory a stage's training takes, before any work."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cli.options import Json, Overrides, RecipeFile, parse_size, whole
from headrace.cli.terminal import say, say_json


def memory(
    recipe: RecipeFile,
    stage: Annotated[
        str | None, typer.Option("--stage", help="Which stage. Default: the one with the longest rows.")
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            "--gpu", metavar="KIND", help="h100, h200, a100, mi300x, or a memory such as 80GB. Default: this machine."
        ),
    ] = None,
    gpus: Annotated[
        int, typer.Option("--gpus", metavar="N", parser=whole(1), help="GPUs of a node, or processes on CPUs.")
    ] = 1,
    nodes: Annotated[int, typer.Option("--nodes", metavar="N", parser=whole(1), help="Nodes.")] = 1,
    host: Annotated[
        int | None,
        typer.Option("--host", metavar="SIZE", parser=parse_size, help="Memory of each node, such as 1.9TB."),
    ] = None,
    overrides: Overrides = [],  # noqa: B006 - typer reads it
    json: Json = False,
) -> None:
    """Show how much memory a stage's training takes, by term and moment of a step, before any work.

    Also the longest row that fits, and what would let longer ones fit. Everything is an estimate from the recipe alone.
    """
    from headrace.memory.machines import Machine
    from headrace.memory.stage import shape_of, stage_of
    from headrace.memory.told import Told
    from headrace.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides)
    one = stage_of(loaded, stage)
    machine = Machine.of(gpu, gpus, nodes, host)
    shape, notes = shape_of(loaded)
    found = Told.of(one, shape, machine, notes)
    if json:
        say_json(found.to_json())
    else:
        say(str(found))
