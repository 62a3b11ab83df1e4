"""``headrace path``: where an artifact of a run is."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cli.options import RunFolder
from headrace.cli.terminal import say


def path(
    run: RunFolder,
    artifact: Annotated[
        str, typer.Argument(metavar="ARTIFACT", help="Artifact name, such as verdicts or sequence-stage1.")
    ],
) -> None:
    """Print the folder of an artifact.

    Prints the version that matches the run's current recipe; older versions may exist next to it.
    """
    from headrace import run_folder
    from headrace.errors import UserError

    for step in run_folder.read_graph(run).named(artifact, "ARTIFACT"):
        folder = run / "artifacts" / step.name
        if not folder.is_dir():
            raise UserError(
                f"The run has not built {step.name} yet.", str(run), f"Run the recipe with --until {artifact} first."
            )
        say(str(folder))
