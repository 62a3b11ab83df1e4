"""``headrace prove-resume``: show on your own recipe that training resumes exactly."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.options import Memory, Overrides, RecipeFile, Workers, whole
from headrace.cli.terminal import say


def prove_resume(
    recipe: RecipeFile,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Run folder. Default: runs/NAME.")] = None,
    stage: Annotated[str | None, typer.Option("--stage", metavar="NAME", help="Default: the first stage.")] = None,
    steps: Annotated[int, typer.Option("--steps", metavar="N", parser=whole(1), help="Steps to stop at.")] = 8,
    processes: Annotated[
        str, typer.Option("--processes", metavar="LIST", help="Numbers of processes to go on with, such as 1,2,4.")
    ] = "1,2",
    overrides: Overrides = [],  # noqa: B006 - typer reads it
    workers: Workers = None,
    memory: Memory = None,
) -> None:
    """Train the first steps with a tiny model, stopping and going on at every step with other processes and
    micro-batches, and compare all batches."""
    from headrace import pipeline
    from headrace.errors import UserError
    from headrace.planning.text import table
    from headrace.recipe.load import load_recipe
    from headrace.run_folder import read_graph
    from headrace.train.installed import check_installed
    from headrace.train.proof import prove, ways

    check_installed()
    loaded = load_recipe(recipe, overrides)
    names = [one.name for one in loaded.stages]
    if not names or (stage is not None and stage not in names):
        raise UserError("There is no such stage.", "--stage", f"Choose one of {', '.join(names) or 'none'}.")
    chosen = loaded.stages[0 if stage is None else names.index(stage)]
    counts = [int(word) for word in processes.split(",") if word.strip().isdecimal() and int(word)]
    if not counts:
        raise UserError(f"{processes!r} is no list of numbers.", "--processes", "Write one such as 1,2.")
    folder = out or Path("runs") / loaded.name
    pipeline.run(loaded, folder, workers=workers, memory=memory, until=f"sequence-{chosen.name}")
    sequence = folder / "artifacts" / read_graph(folder).sequences[chosen.name].name
    with tempfile.TemporaryDirectory(prefix="headrace-proof-") as scratch:
        found = []
        for one in prove(sequence, chosen.train, loaded.seed, Path(scratch), steps, ways(counts, chosen.train.batch)):
            found.append(one)
            say(f"step {one.step} of {steps}: {'equal' if one.equal and one.close else 'DIFFERENT'}", err=True)
    rows = [
        [
            f"{one.step}",
            f"{one.way.processes}",
            "all" if one.way.micro_batch is None else f"{one.way.micro_batch}",
            {"none": "", "full": "sharded"}[one.way.shard],
            f"{one.rows[0]}-{one.rows[1]}",
            one.digest,
            f"{one.loss:.5f}",
            "equal" if one.equal and one.close else "DIFFERENT",
        ]
        for one in found
    ]
    say("\n".join(table(["step", "processes", "micro", "", "rows", "digest", "loss", "batch"], rows)))
    wrong = [one.step for one in found if not (one.equal and one.close)]
    if wrong:
        say(f"Stage {chosen.name} does not resume exactly: steps {', '.join(map(str, wrong))} differ. This is a bug.")
        raise typer.Exit(1)
    say(f"Stage {chosen.name}: stopped and resumed at each of {steps} steps; all batches were equal, losses too.")
