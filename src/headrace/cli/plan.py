"""``headrace plan``: what a run will do, before any work."""

from __future__ import annotations

import typer

from headrace.cli.options import Json, Overrides, RecipeFile, print_json


def plan(recipe: RecipeFile, overrides: Overrides = [], json: Json = False) -> None:  # noqa: B006 - typer reads it
    """Show what a run will do, before any work.

    Graph, documents, tokens, epochs, steps, disk and time: from counts under `expect:` or estimated from the files.
    """
    from headrace.planning.forecast import plan as forecast
    from headrace.recipe.load import load_recipe

    result = forecast(load_recipe(recipe, overrides))
    if json:
        print_json(result.to_json())
    else:
        typer.echo(str(result))
