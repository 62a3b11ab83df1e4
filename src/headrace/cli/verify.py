"""``headrace verify``: whether a run is undamaged."""

from __future__ import annotations

import typer

from headrace.cli.options import Json, RunFolder
from headrace.cli.terminal import say, say_json


def verify(run: RunFolder, json: Json = False) -> None:
    """Read a whole run and check it against its digests.

    Exit code 1 if anything is damaged; `headrace run --verify` rebuilds that.
    """
    from headrace.report.numbers import size
    from headrace.verification import examine

    found = examine(run)
    if json:
        say_json(found.to_json())
    else:
        for entry in found.damaged:
            say(f"damaged  {entry['file']}: {entry['what']}")
        for note in found.notes:
            say(f"note     {note}")
        read = f"{found.files:,} files, {size(found.bytes)} read"
        again = "Run the recipe again with --verify to set damaged files aside and rebuild them."
        say(f"{read}: {len(found.damaged)} damaged. {again}" if found.damaged else f"{read}: all intact")
    if found.damaged:
        raise typer.Exit(1)
