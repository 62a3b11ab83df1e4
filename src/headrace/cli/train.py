"""``headrace train``: CrystalCoder's own params files."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.options import Json, Memory, Workers, whole
from headrace.cli.terminal import say, say_json

if TYPE_CHECKING:
    from headrace.recipe.schema import Recipe


def train(
    params: Annotated[
        Path, typer.Option("--params", "-p", metavar="FILE", help="Params file of the Cerebras Model Zoo.")
    ],
    mode: Annotated[
        str | None, typer.Option("--mode", "-m", help="train, eval, train_and_eval or eval_all. Default: the file's.")
    ] = None,
    model_dir: Annotated[
        str | None, typer.Option("--model_dir", "-o", metavar="DIR", help="Run folder. Default: the file's.")
    ] = None,
    checkpoint_path: Annotated[
        str | None,
        typer.Option("--checkpoint_path", metavar="PATH", help="Checkpoint, or another model_dir for its newest one."),
    ] = None,
    is_pretrained_checkpoint: Annotated[
        bool,
        typer.Option("--is_pretrained_checkpoint", help="Take the weights alone: step and schedule begin anew."),
    ] = False,
    max_steps: Annotated[
        int | None, typer.Option("--max_steps", metavar="N", parser=whole(1), help="The last step.")
    ] = None,
    num_steps: Annotated[
        int | None, typer.Option("--num_steps", metavar="N", parser=whole(1), help="Steps of this launch.")
    ] = None,
    num_epochs: Annotated[
        int | None, typer.Option("--num_epochs", metavar="N", parser=whole(1), help="Passes over the data.")
    ] = None,
    eval_steps: Annotated[
        int | None, typer.Option("--eval_steps", metavar="N", parser=whole(1), help="Batches to evaluate on.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option("--tokenizer", metavar="FILE", help="Tokenizer of the data, to show text.")
    ] = None,
    overrides: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="Another key, such as model.hidden_size=256.")
    ] = [],  # noqa: B006 - typer reads it
    workers: Workers = None,
    memory: Memory = None,
    json: Json = False,
) -> None:
    """Train or evaluate what a params file of CrystalCoder describes (docs/params.md has every key)."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from headrace import pipeline
    from headrace.cerebras.read import read
    from headrace.cli.progress import listener
    from headrace.params import Launch

    flags = {"mode": mode, "model_dir": model_dir, "checkpoint_path": checkpoint_path, "max_steps": max_steps}
    flags |= {"num_steps": num_steps, "num_epochs": num_epochs, "eval_steps": eval_steps}
    flags |= {"is_pretrained_checkpoint": is_pretrained_checkpoint or None}
    read_params = read(params, {f"runconfig.{name}": value for name, value in flags.items()}, overrides)
    for note in read_params.notes:
        say(note, err=True)
    wanted = read_params.section("runconfig").get("mode")
    if wanted is None:
        raise read_params.wrong("Nothing says what to do.", "runconfig.mode", "Give --mode train, eval or eval_all.")
    with listener(sys.stderr if json else sys.stdout) as progress:

        def build(recipe: Recipe, folder: Path, until: str | None) -> Path | None:
            return pipeline.run(recipe, folder, workers, memory, until, progress)

        launch = Launch(
            read_params, build, lambda text: say(text, err=True), None if tokenizer is None else str(tokenizer)
        )
        report = launch.train() if wanted.startswith("train") else None
        losses = [] if wanted == "train" else list(launch.evaluate(every=wanted != "eval"))
    _tell(launch.folder, report, losses, json)


def _tell(folder: Path, report: Path | None, losses: list[dict[str, Any]], json: bool) -> None:
    """Print what was trained and measured."""
    if json:
        say_json({"model_dir": str(folder), "report": None if report is None else str(report), "eval": losses})
        return
    if report is not None:
        say(f"{folder} is trained. Report: {report}")
    for one in losses:
        each = ", ".join(f"{name} {value['loss']:.4f}" for name, value in one["sources"].items())
        loss = "no loss" if one["loss"] is None else f"loss {one['loss']:.4f}, perplexity {one['perplexity']:.4g}"
        say(f"step {one['step']}: {loss} over {one['tokens']:,} tokens in {one['rows']:,} rows ({each})")
