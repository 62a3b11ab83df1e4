"""``headrace clean``: delete what a run's recipe does not need."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from headrace.cli.options import Json, RunFolder
from headrace.cli.terminal import say, say_json


def clean(
    run: RunFolder,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Also delete checkpoints that the recipe does not describe.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be deleted.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    json: Json = False,
) -> None:
    """Delete what a run's recipe no longer needs.

    That is artifacts of earlier versions of the recipe, and damaged ones. Lists them and asks first.
    """
    from headrace.errors import UserError
    from headrace.leftovers import find, remove
    from headrace.planning.text import table
    from headrace.report.numbers import counted, size
    from headrace.visible import one_line

    leftovers = find(run, checkpoints)
    total = sum(leftover.bytes for leftover in leftovers)
    names = [str(leftover.path.relative_to(run)) for leftover in leftovers]
    if not json:
        rows = [[one_line(name), left.kind, size(left.bytes)] for name, left in zip(names, leftovers, strict=True)]
        lines = table(["folder", "what", "disk"], rows) if rows else []
        say("\n".join([*lines, f"{counted(len(leftovers), 'folder')} not needed by the recipe, {size(total)}"]))
    if leftovers and not dry_run:
        if not yes and (json or not sys.stdin.isatty()):
            raise UserError(
                "Nothing was deleted.", str(run), "Add --yes to delete these, or --dry-run to only list them."
            )
        if not yes and not typer.confirm("Delete them?"):
            dry_run = True
            say("Nothing was deleted.")
        else:
            remove(run, leftovers)
    if json:
        listed = [
            {"path": name, "kind": left.kind, "bytes": left.bytes} for name, left in zip(names, leftovers, strict=True)
        ]
        say_json({"removed": bool(leftovers) and not dry_run, "bytes": total, "leftovers": listed})
    elif leftovers and not dry_run:
        say(f"Deleted: {size(total)} freed.")
