"""Describe what went wrong in a user-defined function, with its own lines of code."""

from __future__ import annotations

import re
import sysconfig
import traceback
from pathlib import Path

from headrace.visible import encodable

MESSAGE = 300  # characters kept of an exception's message
FRAMES = 4  # innermost traceback lines shown
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}")
_HOUSE = (str(Path(__file__).parent.parent), "<frozen")
_LIBRARIES = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))


class Failed(Exception):  # noqa: N818 - it says what another's function did
    """A user-defined function raised, or returned something it must not. The message is one line.

    Attributes:
        trace: the lines of the user's code that led there, outermost first.
    """

    def __init__(self, what: str, trace: tuple[str, ...] = ()) -> None:
        super().__init__(encodable(what))
        self.trace = tuple(map(encodable, trace))


def failure(label: str, error: BaseException) -> Failed:
    """Describe an exception of the function called ``label`` in one line, with the lines that led to it.

    The line is stored with documents, so it gives file names without folders and no memory addresses.
    """
    try:
        message = " ".join(str(error).split())
    except Exception as worse:
        message = f"its message cannot be shown, since that raises {type(worse).__name__}"
    message = _ADDRESS.sub("0x...", f"{type(error).__name__}: {message}" if message else type(error).__name__)
    shown = message if len(message) <= MESSAGE else message[:MESSAGE] + "..."
    trace = _trace(error)
    return Failed(f"{label}: {shown}" + (f" ({_short(trace[-1])})" if trace else ""), trace)


def _short(line: str) -> str:
    """A traceback line with its file's folders removed."""
    file, comma, rest = line.partition(", line ")
    return f"{file.rpartition('/')[2]}{comma}{rest}"


def last_line(error: BaseException) -> str:
    """The innermost line of the user's own code that an exception passed through, or ''."""
    trace = _trace(error)
    return trace[-1] if trace else ""


def _trace(error: BaseException) -> tuple[str, ...]:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_HOUSE)]
    own = [f for f in frames if not f.filename.startswith(_LIBRARIES)] or frames
    told = [f"{f.filename}, line {f.lineno}, in {f.name}" + (f": {f.line}" if f.line else "") for f in own[-FRAMES:]]
    if isinstance(error, SyntaxError) and error.filename:
        told.append(f"{error.filename}, line {error.lineno}")
    return tuple(told)
