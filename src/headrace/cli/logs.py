"""``headrace logs``: what the tasks of a run printed, on whatever machine."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from headrace.cli.options import Json, RunFolder
from headrace.cli.terminal import say, say_json
from headrace.errors import UserError


def logs(
    run: RunFolder,
    task: Annotated[
        str | None,
        typer.Option("--task", metavar="ARTIFACT[/PHASE[/N]]", help="Only of these tasks, such as documents/read/7."),
    ] = None,
    bad: Annotated[bool, typer.Option("--bad", help="Only of tasks that died or raised an error.")] = False,
    json: Json = False,
) -> None:
    """Show what workers printed, by task: warnings of libraries, tracebacks, what your own functions print."""
    from headrace.flow.output import outputs
    from headrace.run_folder import read_recipe

    read_recipe(run)  # whether it is a run
    kind, phase, number = [*(task or "").split("/"), "", "", ""][:3]
    if number and not number.isdecimal():
        raise UserError(f"{number!r} is not the number of a task.", "--task", "Write such as documents/read/7.")
    found = [
        one
        for one in outputs(run)
        if (not kind or one.artifact == kind or one.artifact.rpartition("-")[0] == kind)
        and (not phase or one.phase == phase)
        and (not number or one.task == int(number))
        and (not bad or one.end not in ("", "done"))
    ]
    if json:
        say_json([asdict(one) for one in found])
        return
    for one in found:
        place = f"{one.artifact}/{one.phase}/{one.task}" if one.artifact else one.file
        say(" ".join(part for part in ("==", place, f"on {one.node}" if one.node else "", one.end) if part))
        say(one.text)
    if not found:
        say("Nothing was printed" + (" there." if task or bad else "."), err=True)
