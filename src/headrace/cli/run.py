"""``headrace run``: build everything that a recipe describes."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.cli.options import (
    Address,
    Json,
    Memory,
    Nodes,
    OnChange,
    Overrides,
    RecipeFile,
    Sbatch,
    Where,
    Workers,
    whole,
)
from headrace.cli.signals import stop_when_asked
from headrace.cli.terminal import say, say_json, screen


def run(
    recipe: RecipeFile,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="DIR", help="Run folder, or URL such as s3://BUCKET/PATH. Default: runs/NAME."),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="ARTIFACT", help="Stop after this artifact, such as verdicts.")
    ] = None,
    workers: Workers = None,
    memory: Memory = None,
    check_input: Annotated[
        bool,
        typer.Option("--check-input", help="Re-read all input, including files whose size and change time are known."),
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Also read all finished artifacts, and rebuild damaged ones.")
    ] = False,
    store: Annotated[
        Path | None,
        typer.Option(
            "--store", metavar="DIR", help="Folder shared by runs: artifacts that other runs built are reused."
        ),
    ] = None,
    on_change: OnChange = None,
    executor: Where = "local",
    address: Address = None,
    nodes: Nodes = None,
    sbatch: Sbatch = [],  # noqa: B006 - typer reads it
    watch: Annotated[
        bool, typer.Option("--watch", help="Also show what each node does, its rate, and tasks that are slow.")
    ] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics", metavar="PORT", parser=whole(0), help="Serve metrics for Prometheus on 127.0.0.1:PORT."
        ),
    ] = None,
    overrides: Overrides = [],  # noqa: B006 - typer reads it
    json: Json = False,
) -> None:
    """Build everything a recipe describes, skipping what is already done."""
    stop_when_asked()
    from headrace import pipeline, run_folder
    from headrace.cli.metrics import metrics
    from headrace.cli.progress import listener
    from headrace.flow.cloud import is_url
    from headrace.flow.executors import TaskFailed
    from headrace.flow.executors.engine import Engine
    from headrace.flow.mirror import local_path
    from headrace.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides)
    run_folder.without_pandas(loaded)
    folder = local_path(out) if out and is_url(out) else Path(out or Path("runs") / loaded.name)
    try:
        with (
            listener(sys.stderr if json else sys.stdout, watch) as progress,
            nullcontext() if metrics_port is None else metrics(metrics_port) as measured,
        ):

            def hear(event: dict[str, Any]) -> None:
                progress(event)
                if measured is not None:
                    measured(event)

            report = pipeline.run(
                loaded,
                folder,
                workers=workers,
                memory=memory,
                until=until,
                listener=hear,
                check_input=check_input,
                verify=verify,
                store=store,
                on_change=on_change,
                engine=Engine(executor, address, nodes, tuple(sbatch)),
            )
    except TaskFailed as failure:
        say(f"{failure}\nThis is a bug in headrace. Finished work is kept.", err=True)
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
            say(f"{out or folder} is done up to {until}. To continue, run the same command without --until.")
    else:
        _close(folder, report, json)


def _close(folder: Path, report: Path, json: bool) -> None:
    """Print the summary at the end of a run."""
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
