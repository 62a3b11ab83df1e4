"""``headrace path``: where an artifact of a run lies."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cli.options import RunFolder
from headrace.cli.terminal import say


def path(
    run: RunFolder,
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="Such as verdicts, or sequence-stage1.")],
) -> None:
    """Print the folder of an artifact.

    The one that the run's recipe describes as it is now: older versions may lie beside it.
    """
    from headrace import run_folder
    from headrace.errors import UserError

    for step in run_folder.read_graph(run).named(artifact, "ARTIFACT"):
        folder = run / "artifacts" / step.name
        if not folder.is_dir():
            raise UserError(f"The run has not made {step.name} yet.", str(run), f"Run it --until {artifact} first.")
        say(str(folder))
