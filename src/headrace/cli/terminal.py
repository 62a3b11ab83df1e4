"""All output to the terminal goes through here, and control characters are made visible on the way."""

from __future__ import annotations

import shutil
import sys
from typing import Any, TextIO

from headrace.visible import escaped_json, visible


def say(text: str, err: bool = False, stream: TextIO | None = None) -> None:
    """Print text and a newline.

    Args:
        text: one or several lines.
        err: print to standard error.
        stream: print to this stream instead.
    """
    print(visible(text), file=stream or (sys.stderr if err else sys.stdout), flush=True)


def say_json(value: Any) -> None:
    """Print a value as indented JSON."""
    import orjson

    # NumPy numbers become plain ones.
    print(escaped_json(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY).decode()))


def screen(most: int = 100) -> int:
    """Characters per line: the width of the terminal (or COLUMNS), at most ``most``."""
    return min(most, shutil.get_terminal_size((most, 24)).columns)


def show_what_cannot_be_encoded() -> None:
    """Let a terminal that is not UTF-8 show escapes for characters it lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
