"""The application: all commands, and what errors, Ctrl-C and closed pipes do."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from headrace import __version__
from headrace.cli import (
    card,
    clean,
    compare,
    digest,
    doctor,
    evaluate,
    export,
    init,
    ledger,
    logs,
    memory,
    mup,
    path,
    plan,
    prove_resume,
    replay,
    run,
    spikes,
    status,
    train,
    verify,
    view,
    why,
    withdraw,
)
from headrace.cli.terminal import say
from headrace.errors import UserError
from headrace.train.interruption import Interrupted

# Plain help: rich would take a third of the time allowed for `headrace --help`.
app = typer.Typer(
    name="headrace",
    help="Turn raw corpora into the exact token sequence a language model trains on, and train it stage by stage.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

# 128 + SIGPIPE, the exit code of a program that does not handle the signal.
CLOSED_PIPE = 141
# 128 + SIGTERM: training stopped as it was asked to, with its checkpoint written.
TERMINATED = 143


def guarded(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turn anything that ends a command early into one message and the right exit code."""

    @functools.wraps(command)
    def run_guarded(*args: Any, **options: Any) -> Any:
        try:
            result = command(*args, **options)
            sys.stdout.flush()
            return result
        except Interrupted as error:
            say(str(error), err=True)
            raise typer.Exit(TERMINATED) from None
        except UserError as error:
            say(str(error), err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            resumes = command in (run.run, train.train, evaluate.eval, compare.compare)
            more = " Finished work is kept: run the same command again to resume." if resumes else ""
            say(f"Stopped.{more}", err=True)
            raise typer.Exit(130) from None
        except BrokenPipeError:
            _silence()
            raise typer.Exit(CLOSED_PIPE) from None
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except Exception as error:
            told = _fixable(error, options.get("run"))
            if told is None:
                raise
            if isinstance(error, OSError):
                _silence()
            say(str(told), err=True)
            raise typer.Exit(2) from None

    return run_guarded


def _silence() -> None:
    """Stop writing to standard output: its reader has gone, or the disk is full."""
    with suppress(OSError):  # not a real file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fixable(error: Exception, run_folder: Any) -> UserError | None:
    """What the user can do about an unexpected exception: the system refused something, or the run is damaged."""
    from headrace.flow.storage import explain_os_error

    told = explain_os_error(error)
    if told is None and isinstance(run_folder, Path):
        from headrace import pipeline

        try:
            pipeline.sound_artifacts(run_folder)
        except UserError as damage:
            return damage
    return told


def _version(wanted: bool) -> None:
    if wanted:
        say(f"headrace {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Global options of headrace."""


COMMANDS = (
    init.init,
    plan.plan,
    memory.memory,
    run.run,
    train.train,
    prove_resume.prove_resume,
    status.status,
    logs.logs,
    why.why,
    withdraw.withdraw,
    replay.replay,
    view.view,
    spikes.spikes,
    ledger.ledger,
    mup.mup,
    compare.compare,
    export.export,
    evaluate.eval,
    card.card,
    path.path,
    digest.digest,
    verify.verify,
    clean.clean,
    doctor.doctor,
)
for _command in COMMANDS:
    app.command()(guarded(_command))
