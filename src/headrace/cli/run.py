"""``headrace run``: make everything that a recipe describes."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.options import Json, Overrides, RecipeFile, parse_memory, whole
from headrace.cli.terminal import say, say_json, screen


def run(
    recipe: RecipeFile,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="The run's folder; runs/NAME if not given.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="ARTIFACT", help="Stop at this artifact, such as verdicts.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", metavar="N", parser=whole(0), help="Worker processes; all cores if not given, 0 for none."
        ),
    ] = None,
    memory: Annotated[
        int | None,
        typer.Option(
            "--memory",
            metavar="SIZE",
            parser=parse_memory,
            help="Memory for data, such as 4GB; half of what is free if not given.",
        ),
    ] = None,
    check_input: Annotated[
        bool, typer.Option("--check-input", help="Read all input again, also files of known size and time of change.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read all finished artifacts too, and make anew those that are damaged.")
    ] = False,
    store: Annotated[
        Path | None,
        typer.Option("--store", metavar="DIR", help="A folder that runs share: what others made is taken from there."),
    ] = None,
    overrides: Overrides = [],  # noqa: B006 - typer reads it
    json: Json = False,
) -> None:
    """Do what a recipe describes, and only what is missing."""
    # A scheduler's request to end is met as Ctrl-C is: workers are let go, and what is finished is kept.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from headrace import pipeline, run_folder
    from headrace.cli.progress import listener
    from headrace.flow.executors import TaskFailed
    from headrace.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides)
    folder = out or Path("runs") / loaded.name
    try:
        with listener(sys.stderr if json else sys.stdout) as progress:
            report = pipeline.run(
                loaded,
                folder,
                workers=workers,
                memory=memory,
                until=until,
                listener=progress,
                check_input=check_input,
                verify=verify,
                store=store,
            )
    except TaskFailed as failure:
        say(f"{failure}\nThis is a defect of headrace. What is finished is kept.", err=True)
        raise typer.Exit(1) from None
    if report is None:
        if json:
            say_json(run_folder.status(folder))
        else:
            from headrace.report.departures import departures
            from headrace.report.gather import records
            from headrace.report.summary import corpus_lines, departure_lines

            sources = records(folder)
            said = departure_lines(departures(loaded, sources), screen())
            say("\n".join([*corpus_lines(sources, screen()), *said]))
            say(f"{folder} is done until {until}. Go on with the same command without --until.")
    else:
        _close(folder, report, json)


def _close(folder: Path, report: Path, json: bool) -> None:
    """Print the screenful that a run ends with."""
    from dataclasses import replace

    from headrace.report.gather import gather
    from headrace.report.summary import renderable, summary, to_json

    facts = replace(gather(folder), report=str(report))
    if json:
        say_json(to_json(facts))
    elif sys.stdout.isatty():
        from rich.console import Console

        Console().print(renderable(facts, screen()))
    else:
        say(summary(facts, screen()))
