"""The one door to the terminal: whatever a command prints goes through here, and is made visible on its way."""

from __future__ import annotations

import shutil
import sys
from typing import Any, TextIO

from headrace.visible import escaped_json, visible


def say(text: str, err: bool = False, stream: TextIO | None = None) -> None:
    """Print text and a line end.

    Args:
        text: of one or several lines.
        err: to standard error.
        stream: to this stream instead of either.
    """
    print(visible(text), file=stream or (sys.stderr if err else sys.stdout), flush=True)


def say_json(value: Any) -> None:
    """Print a value as indented JSON."""
    import orjson

    # Numbers of NumPy stand for themselves.
    print(escaped_json(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY).decode()))


def screen(most: int = 100) -> int:
    """Characters of a line: as wide as the terminal (or COLUMNS), at most so many."""
    return min(most, shutil.get_terminal_size((most, 24)).columns)


def show_what_cannot_be_encoded() -> None:
    """Let a terminal that is not UTF-8 show escapes where it lacks a character, rather than end the command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
