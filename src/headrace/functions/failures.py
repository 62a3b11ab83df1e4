"""What went wrong in a function of the user's own, in its own lines."""

from __future__ import annotations

import re
import sysconfig
import traceback
from pathlib import Path

MESSAGE = 300  # characters of an exception's message that are kept
FRAMES = 4  # lines of the traceback that are shown, the innermost
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}")
_HOUSE = (str(Path(__file__).parent.parent), "<frozen")
_LIBRARIES = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))


class Failed(Exception):  # noqa: N818 - it says what another's function did
    """A function of the user's own raised, or gave something else than it must. Its text is one line.

    Attributes:
        trace: lines of the user's code that led there, outermost first.
    """

    def __init__(self, what: str, trace: tuple[str, ...] = ()) -> None:
        super().__init__(what)
        self.trace = trace


def failure(label: str, error: BaseException) -> Failed:
    """An exception of the function called ``label`` as one line, with the lines that led to it.

    The line is kept with documents, so it names files without their folders and no addresses in memory.
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
    """A line of a traceback whose file has lost its folders."""
    file, comma, rest = line.partition(", line ")
    return f"{file.rpartition('/')[2]}{comma}{rest}"


def last_line(error: BaseException) -> str:
    """The innermost line of the user's own code that an exception came through, or nothing."""
    trace = _trace(error)
    return trace[-1] if trace else ""


def _trace(error: BaseException) -> tuple[str, ...]:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_HOUSE)]
    own = [f for f in frames if not f.filename.startswith(_LIBRARIES)] or frames
    told = [f"{f.filename}, line {f.lineno}, in {f.name}" + (f": {f.line}" if f.line else "") for f in own[-FRAMES:]]
    if isinstance(error, SyntaxError) and error.filename:
        told.append(f"{error.filename}, line {error.lineno}")
    return tuple(told)
