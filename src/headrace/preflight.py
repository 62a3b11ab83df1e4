"""Load the functions that a recipe names in a separate process, before any work is done for them.

A file that does not run, a missing package or a parameter that a function does not take is reported at once, and
whatever a module does on import does not affect the coordinator.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson

from headrace.errors import UserError
from headrace.visible import json_line

LOG = "preflight.log"


def preflight(run: Path) -> None:
    """Load the functions of a run's recipe.

    Raises:
        UserError: one cannot be loaded or called, or loading it ended the process.
    """
    log = run / "logs" / LOG
    log.parent.mkdir(exist_ok=True)
    with log.open("wb") as stderr:
        command = [sys.executable, "-m", "headrace.preflight", str(run)]
        process = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr)
    told = [orjson.loads(line) for line in process.stdout.splitlines()]
    if not told or "done" not in told[-1]:
        if told and "what" in told[-1]:
            raise UserError(**told[-1])
        place, label = (told[-1]["place"], told[-1]["label"]) if told else ("the recipe", "functions")
        raise UserError(
            f"Loading {label} exited with code {process.returncode}.",
            place,
            f"Check what it does on import; log: {log}",
        )
    if log.stat().st_size == 0:
        log.unlink()


def main() -> None:
    """``python -m headrace.preflight RUN``: JSON lines with what is being loaded, then what is wrong or ``done``."""
    from headrace.run_folder import read_recipe

    run = Path(sys.argv[1])
    channel = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a module prints must not mix with it

    def say(**told: object) -> None:
        channel.write(json_line(told))

    try:
        for place, function in read_recipe(run).functions():
            say(place=place, label=function.label)
            function.load(run)
    except UserError as error:
        say(what=error.what, where=error.where, fix=error.fix)
    else:
        say(done=True)
    sys.stdout.flush()
    os._exit(0)  # do not wait for threads that a module started


if __name__ == "__main__":
    main()
