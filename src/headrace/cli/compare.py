"""``headrace compare``: variants of a recipe over several seeds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.options import Json, Memory, Overrides, RecipeFile, Workers, whole
from headrace.cli.signals import stop_when_asked
from headrace.cli.terminal import say, say_json

if TYPE_CHECKING:
    from headrace.ablations import Run


def compare(
    recipe: RecipeFile,
    vary: Annotated[
        list[str],
        typer.Option(
            "--vary", metavar="KEY=A,B,C", help="Values of a recipe key to compare; with several, their product."
        ),
    ] = [],  # noqa: B006 - typer reads it
    variant: Annotated[
        list[str],
        typer.Option(
            "--variant",
            metavar="'NAME: KEY=A; KEY=B'",
            help="A variant that differs in several keys; a name alone is the recipe as it is.",
        ),
    ] = [],  # noqa: B006
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="N", parser=whole(1), help="Seeds of weights and order to repeat with.")
    ] = 3,
    stage: Annotated[
        str | None, typer.Option("--stage", help="Stage whose model is measured. Default: the last.")
    ] = None,
    tasks: Annotated[
        str,
        typer.Option("--tasks", metavar="LIST", help="Code tasks to solve as well, as in `headrace eval`: pass@1."),
    ] = "",
    unsafe: Annotated[
        bool,
        typer.Option("--unsafe", help="Run programs even where they cannot be isolated from this user's files."),
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder of the runs. Default: runs/NAME-compared.")
    ] = None,
    workers: Workers = None,
    memory: Memory = None,
    overrides: Overrides = [],  # noqa: B006
    json: Json = False,
) -> None:
    """Run variants of a recipe with several seeds, and compare held-out losses and code tasks.

    The first variant is what the others are compared with. Runs share every artifact that does not differ; an
    interrupted comparison resumes when the same command is run again.
    """
    stop_when_asked()
    from headrace import ablations
    from headrace.cli.progress import listener
    from headrace.recipe.load import load_recipe
    from headrace.report.comparison import comparison_lines

    chosen = ablations.settings(vary, variant)
    folder = out or Path("runs") / f"{load_recipe(recipe, overrides).name}-compared"
    runs = ablations.planned(recipe, chosen, seeds, folder, overrides)
    heard = sys.stderr if json else sys.stdout

    def listening(run: Run, number: int) -> Any:
        say(f"Run {number + 1} of {len(runs)}: {run.settings.name}, seed {run.seed}", stream=heard)
        return listener(heard)

    wanted = [one.strip() for one in tasks.split(",") if one.strip()]
    compared = ablations.compare(runs, folder, stage, wanted, unsafe, workers, memory, listening)
    if json:
        say_json(compared.to_json())
    else:
        say("\n".join(["", *comparison_lines(compared), "", f"Page: {folder / 'comparison.html'}"]))
