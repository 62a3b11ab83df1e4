"""``headrace train``: a stage of a run, on one process or on all that were started together; or a params file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.options import Json, Memory, OnChange, Workers, place, whole
from headrace.cli.signals import stop_when_asked
from headrace.cli.terminal import say, say_json
from headrace.errors import UserError

if TYPE_CHECKING:
    from headrace.recipe.schema import Recipe


def train(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN]", help="Run folder, or its URL, whose sequences are made.", parser=place),
    ] = None,
    stage: Annotated[str | None, typer.Option("--stage", metavar="NAME", help="The stage of RUN to train.")] = None,
    params: Annotated[
        Path | None, typer.Option("--params", "-p", metavar="FILE", help="Params file of the Cerebras Model Zoo.")
    ] = None,
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
    on_change: OnChange = None,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Only make the data that FILE names, for RUN --stage train.")
    ] = False,
    workers: Workers = None,
    memory: Memory = None,
    json: Json = False,
) -> None:
    """Train a stage of a run, on all processes that torchrun or srun started (`torchrun -m headrace train RUN --stage
    S`); or train and evaluate what a params file of CrystalCoder describes (docs/params.md has every key)."""
    flags = {"mode": mode, "model_dir": model_dir, "checkpoint_path": checkpoint_path, "max_steps": max_steps}
    flags |= {"num_steps": num_steps, "num_epochs": num_epochs, "eval_steps": eval_steps}
    flags |= {"is_pretrained_checkpoint": is_pretrained_checkpoint or None}
    if params is not None:
        if run is not None or stage is not None:
            raise _unclear("A run and a params file cannot be trained at once.")
        if int(os.environ.get("WORLD_SIZE", "1") or 1) > 1:
            raise UserError(
                "A params file is for one process.",
                "headrace train --params",
                "Make its data with --prepare, then start all processes on `headrace train MODEL_DIR --stage train`.",
            )
        if on_change is not None:
            raise _unclear("--on-change is for runs: another params file trains beside the one before.")
        _params(params, flags, tokenizer, overrides, prepare, workers, memory, json)
        return
    others = {**flags, "tokenizer": tokenizer, "set": overrides or None, "prepare": prepare or None, "workers": workers}
    others |= {"json": json or None}
    for name, value in others.items():
        if value is not None:
            raise _unclear(f"--{name} is for params files; a run's recipe says how it is trained.")
    if run is None or stage is None:
        raise _unclear("It is not clear what to train.")
    _stage(run, stage, memory, on_change)


def _unclear(what: str) -> UserError:
    fix = "Write `headrace train RUN --stage NAME`, or `headrace train --params FILE --mode train`."
    return UserError(what, "headrace train", fix)


def _stage(run: Path, stage: str, memory: int | None, on_change: Any) -> None:
    """Train a stage of a run; rank 0 alone shows it."""
    from headrace import launched
    from headrace.cli.progress import listener
    from headrace.environment import data_memory
    from headrace.train.installed import check_installed

    check_installed()
    if int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) or 0):
        launched.train(run, stage, memory or data_memory(), None, on_change)
        return
    with listener(sys.stdout) as progress:
        launched.train(run, stage, memory or data_memory(), progress, on_change)
    say(f"Stage {stage} is trained.")


def _params(
    params: Path,
    flags: dict[str, Any],
    tokenizer: Path | None,
    overrides: list[str],
    prepare: bool,
    workers: int | None,
    memory: int | None,
    json: bool,
) -> None:
    """Train or evaluate what a params file describes."""
    stop_when_asked()
    from headrace import pipeline
    from headrace.cerebras.launch import Launch
    from headrace.cerebras.read import read
    from headrace.cerebras.translate import STAGE
    from headrace.cli.progress import listener
    from headrace.flow.executors import TaskFailed
    from headrace.report.build import write_report

    read_params = read(params, {f"runconfig.{name}": value for name, value in flags.items()}, overrides)
    for note in read_params.notes:
        say(note, err=True)
    wanted = read_params.section("runconfig").get("mode")
    if wanted is None:
        raise read_params.wrong("Nothing says what to do.", "runconfig.mode", "Give --mode train, eval or eval_all.")
    with listener(sys.stderr if json else sys.stdout) as progress:

        def build(recipe: Recipe, folder: Path, until: str) -> None:
            # What a file says of where to begin is in the recipe: another training begins beside the one before.
            pipeline.run(recipe, folder, workers, memory, until, progress, on_change="branch")

        launch = Launch(
            read_params, build, lambda text: say(text, err=True), None if tokenizer is None else str(tokenizer)
        )
        report, losses = None, []
        try:
            if not wanted.startswith("train"):
                losses = list(launch.evaluate(every=wanted == "eval_all"))
            else:
                launch.train(prepare)
                if not prepare:
                    report = write_report(launch.folder)
                    losses = launch.evaluated() if wanted == "train_and_eval" else []
        except TaskFailed as failure:
            say(f"{failure}\nThis is a bug in headrace. Finished work is kept.", err=True)
            raise typer.Exit(1) from None
    if prepare:
        say(
            f"The data of {launch.folder} are made: train with `headrace train {launch.folder} --stage {STAGE}`.",
            err=True,
        )
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
