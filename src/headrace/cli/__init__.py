"""The command line: ``headrace COMMAND``. One file per command; what a command does is implemented elsewhere."""

from __future__ import annotations

import gc
import os
import sys

# Objects created between garbage collections. With Python's 700, these take a sixth of the time of imports.
GARBAGE = 50_000


def main() -> None:
    """Run the command line and exit: 0 done, 1 a bug, 2 something the user can fix, 130 stopped by Ctrl-C."""
    gc.set_threshold(GARBAGE)
    _open_closed()
    from headrace.cli.app import app
    from headrace.cli.terminal import say, show_what_cannot_be_encoded

    show_what_cannot_be_encoded()
    try:
        # Otherwise Typer prints its own errors, which quote arguments unescaped.
        code = app(standalone_mode=False)
    except KeyboardInterrupt:
        say("Stopped.", err=True)
        code = 130
    except Exception as error:
        code = _tell(error)
    sys.exit(code)


def _open_closed() -> None:
    """Open what the shell closed (``>&-``), so that no file takes the number of a standard stream and is written to."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))


def _tell(error: Exception) -> int:
    """Print a usage error as Typer does, and a bug with its traceback; returns the exit code."""
    import io
    import traceback

    from headrace.cli.terminal import say

    if hasattr(error, "show"):  # an error from Click, which Typer bundles under a different name in each version
        text = io.StringIO()
        error.show(file=text)
        say(text.getvalue().rstrip(), err=True)
        return 2
    say(f"{''.join(traceback.format_exception(error))}This is a bug in headrace.", err=True)
    return 1
