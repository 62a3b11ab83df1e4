"""``headrace card``: the data card of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.options import RunFolder
from headrace.cli.terminal import say


def card(
    run: RunFolder,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write it here, with its chart beside it, rather than print it."),
    ] = None,
    stage: Annotated[
        list[str] | None, typer.Option("--stage", help="Only this stage; repeatable. Default: all stages.")
    ] = None,
    attribution: Annotated[
        Path | None,
        typer.Option(
            "--attribution", metavar="FILE", help="Also write ATTRIBUTION.parquet: each document with its license."
        ),
    ] = None,
) -> None:
    """Write a data card: what went in, what was removed, tokens by stage, licenses, digests, the recipe."""
    from headrace.report.card.write import write_card

    text = write_card(run, out, attribution, stage)
    if out is None:
        say(text.rstrip("\n"))
    for path in (out, attribution):
        if path is not None:
            say(str(path))
