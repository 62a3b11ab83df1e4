"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

# A task holds a row group of 8 MB of text in several forms at once.
LEAST_MEMORY = 64_000_000

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe file (YAML).")]


def place(text: str) -> Path:
    """The folder of a path; of a URL, the one in which what lies there is read.

    Raises:
        typer.BadParameter: the URL cannot be opened.
    """
    from headrace.flow.cloud import is_url

    if not is_url(text):
        return Path(text)
    from headrace.errors import UserError
    from headrace.flow.mirror import working_folder

    try:
        return working_folder(text)
    except UserError as error:
        raise typer.BadParameter(str(error)) from None


RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, or its URL.", parser=place)]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe key, such as split.test=0.01.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def parse_size(text: str) -> int:
    """Parse a size such as ``4GB`` into bytes.

    Raises:
        typer.BadParameter: it is not a size of at least a byte.
    """
    from pydantic_core import PydanticCustomError

    from headrace.recipe import base

    try:
        size = base.parse_size(text)
    except PydanticCustomError as error:
        raise typer.BadParameter(f"{error.message()}; use a size such as 4GB") from None
    if not isinstance(size, int) or size < 1:
        raise typer.BadParameter(f"{text!r} is not a size; use one such as 4GB")
    return size


def parse_memory(text: str) -> int:
    """Parse a size such as ``4GB`` into bytes.

    Raises:
        typer.BadParameter: it is not a size, or too small for a worker to hold one row group.
    """
    size = parse_size(text)
    if size < LEAST_MEMORY:
        raise typer.BadParameter(f"{text} is less than {LEAST_MEMORY // 10**6} MB, the minimum for a run")
    return size


def whole(least: int) -> Callable[[str], int]:
    """A parser of integers from ``least`` on, with an error message in plain words."""

    def parse(text: str) -> int:
        # Typer passes defaults through the parser too.
        number = int(text) if str(text).lstrip("-").isdecimal() and len(str(text)) < 19 else least - 1
        if number < least:
            raise typer.BadParameter(f"{text!r} is not a whole number of at least {least}")
        return number

    return parse


def one_of(*words: str) -> Callable[[str], str]:
    """A parser of one of a few words."""

    def parse(text: str) -> str:
        if text not in words:
            raise typer.BadParameter(f"{text!r} is none of {', '.join(words)}")
        return text

    return parse


OnChange = Annotated[
    Any,
    typer.Option(
        "--on-change",
        metavar="WHAT",
        help="For a stage that was being trained when its recipe changed: accept (go on from there), branch (leave it, "
        "and train what the recipe says beside it), or stop. Default: accept, but stop if its sequence has changed.",
        parser=one_of("accept", "branch", "stop"),
    ),
]

SequenceLength = Annotated[
    int | None,
    typer.Option(
        "--sequence-length",
        metavar="N",
        parser=whole(1),
        help="Length of a row, for files that are one line of tokens.",
    ),
]


TokenizerFile = Annotated[
    Path | None,
    typer.Option("--tokenizer", metavar="FILE", help="Tokenizer file, for files that come without a run."),
]

Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", metavar="N", parser=whole(0), help="Worker processes; 0 for none. Default: one per core."
    ),
]
Memory = Annotated[
    int | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        parser=parse_memory,
        help="Memory for data, such as 4GB. Default: half of what is free.",
    ),
]
Where = Annotated[
    Any,
    typer.Option(
        "--executor",
        metavar="WHERE",
        help="Where the work is done: local (this machine), ray or slurm (a cluster, where --workers and --memory are "
        "for each node).",
        parser=one_of("local", "ray", "slurm"),
    ),
]
Nodes = Annotated[
    int | None,
    typer.Option("--nodes", metavar="N", parser=whole(1), help="Nodes of a cluster at most. Default: those there are."),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help="Head node of the Ray cluster; local starts Ray on this machine. Default: RAY_ADDRESS, or what runs here.",
    ),
]
Sbatch = Annotated[
    list[str],
    typer.Option(
        "--sbatch", metavar="OPTION", help="Option of sbatch for the jobs of --executor slurm, such as --time=8:00:00."
    ),
]
