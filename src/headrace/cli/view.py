"""``headrace view``: look at a run, a sequence or files in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.options import SequenceLength, TokenizerFile, place, whole
from headrace.cli.terminal import say
from headrace.report.numbers import counted


def view(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="TARGET",
            help="Run folder, recipe, export, files in a format that is read, or a URL.",
            parser=place,
        ),
    ],
    other: Annotated[
        Path | None,
        typer.Option("--with", metavar="OTHER", help="Another run or recipe, to compare this one with.", parser=place),
    ] = None,
    tokenizer: TokenizerFile = None,
    sequence_length: SequenceLength = None,
    host: Annotated[
        str, typer.Option("--host", metavar="HOST", help="Address to listen on; others than loopback need a token.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option("--port", metavar="N", parser=whole(0), help="Port. Default: a free one from 8765 on.")
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser.")] = True,
    mcp: Annotated[
        bool, typer.Option("--mcp", help="Answer a program over standard input and output (Model Context Protocol).")
    ] = False,
    export: Annotated[
        Path | None, typer.Option("--export", metavar="OUT", help="Write a run as static pages to a new folder.")
    ] = None,
) -> None:
    """Show a run, a recipe, a sequence or files in a browser."""
    from headrace.errors import UserError

    if mcp and export is not None:
        raise UserError("--mcp and --export are two ways to view.", "headrace view", "Choose one of them.")
    try:
        from headrace.view.target import Target

        if mcp:
            from headrace.view.tools import serve_tools
        elif export is not None:
            from headrace.view.publish import publish
        else:
            from headrace.view.server import serve
    except ModuleNotFoundError as error:
        raise UserError(
            f"The viewer needs the package {error.name}.", "headrace view", "Run `pip install 'headrace[view]'`."
        ) from None
    compared = None if other is None else Target(other)
    target = Target(path, tokenizer, sequence_length, compared)
    if mcp:
        serve_tools(target)
    elif export is not None:
        say(f"Wrote {counted(publish(target, export), 'page')}: {export / 'index.html'}")
    else:
        serve(target, host, port, browser, say)
