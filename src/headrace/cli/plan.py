"""``headrace plan``: what a run will do, before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from headrace.cli.options import Json, Overrides, RecipeFile, whole
from headrace.cli.terminal import say, say_json


def plan(
    recipe: RecipeFile,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Run folder; finished work in it is counted exactly. Default: runs/NAME."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            parser=whole(1),
            help="Plan for this many cores like this machine's. Default: all of them.",
        ),
    ] = None,
    nodes: Annotated[
        int | None,
        typer.Option("--nodes", metavar="N", parser=whole(1), help="Also plan for a cluster of so many machines."),
    ] = None,
    cores: Annotated[
        int, typer.Option("--cores", metavar="N", parser=whole(1), help="Cores of each of the --nodes.")
    ] = 64,
    storage: Annotated[
        Literal["shared", "s3"],
        typer.Option("--storage", help="Where the cluster's run folder lies: a shared file system or an object store."),
    ] = "shared",
    overrides: Overrides = [],  # noqa: B006 - typer reads it
    json: Json = False,
) -> None:
    """Show what a run will do, before any work.

    Shows graph, documents, tokens, epochs, steps, disk, memory and time, based on counts under `expect:` or a sample of
    the files, and on the measured rate of each step.
    """
    from headrace.flow.notices import notices_to
    from headrace.planning.cluster import ClusterPlan
    from headrace.planning.forecast import plan as forecast
    from headrace.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides)
    with notices_to(lambda text: say(text, err=True)):
        result = forecast(loaded, out or Path("runs") / loaded.name, workers=workers)
    cluster = None if nodes is None else ClusterPlan.of(result, nodes, cores, storage)
    if json:
        say_json(result.to_json() | ({} if cluster is None else {"cluster": cluster.to_json()}))
    else:
        say(str(result) if cluster is None else f"{result}\n\n{cluster}")
