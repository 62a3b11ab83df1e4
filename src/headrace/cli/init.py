"""``headrace init``: a commented recipe to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.terminal import say


def init(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write recipe.yaml.")] = Path()) -> None:
    """Write a commented recipe to start from."""
    from headrace.recipe.starter import write_starter

    path = write_starter(folder)
    say(f"{path} written.")
    say(f"See what it will do with: headrace plan {path}")
    say(f"Do it with:               headrace run {path}")
