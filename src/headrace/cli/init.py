"""``headrace init``: a commented recipe to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.terminal import say


def init(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for recipe.yaml.")] = Path()) -> None:
    """Write a commented starter recipe."""
    from headrace.recipe.starter import write_starter

    path = write_starter(folder)
    say(f"Wrote {path}.")
    say(f"Preview it: headrace plan {path}")
    say(f"Run it:     headrace run {path}")
