"""``headrace doctor``: whether headrace can run well here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.options import Json
from headrace.cli.terminal import say, say_json


def doctor(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder that runs will be written to.")] = Path(),
    json: Json = False,
) -> None:
    """Check this machine and say how to fix problems.

    Checks versions, cores, memory, disk, caches, limits and PyTorch.
    """
    from headrace.doctor import examine

    findings = examine(out)
    if json:
        say_json([finding.to_json() for finding in findings])
    else:
        for finding in findings:
            say(str(finding))
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(1)
