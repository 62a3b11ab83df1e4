"""``headrace digest``: digests of a run's artifacts."""

from __future__ import annotations

from headrace.cli.options import Json, RunFolder
from headrace.cli.terminal import say, say_json


def digest(run: RunFolder, json: Json = False) -> None:
    """Print the digests of a run's artifacts.

    Two runs of the same recipe on the same input have equal digests, except for models.
    """
    from headrace import run_folder

    told = run_folder.digest(run)
    if json:
        say_json(told)
    else:
        for name, value in told["artifacts"].items():
            say(f"{value}  {name}")
        say(f"{told['total']}  all except models")
