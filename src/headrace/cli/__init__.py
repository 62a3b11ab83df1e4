"""The command line: ``headrace COMMAND``. One file for each command; what a command does lives in the other rooms."""

from __future__ import annotations

import gc
import sys

# Objects made between two looks for garbage. With Python's 700 these are a sixth of the time that imports take.
GARBAGE = 50_000


def main() -> None:
    """Run the command line and exit: 0 done, 1 a bug, 2 something the user can fix, 130 stopped by Ctrl-C."""
    gc.set_threshold(GARBAGE)
    from headrace.cli.app import app
    from headrace.cli.terminal import say, show_what_cannot_be_encoded

    show_what_cannot_be_encoded()
    try:
        # Without it Typer prints its own errors, which quote arguments as they are.
        code = app(standalone_mode=False)
    except KeyboardInterrupt:
        say("Stopped.", err=True)
        code = 130
    except Exception as error:
        code = _tell(error)
    sys.exit(code)


def _tell(error: Exception) -> int:
    """Print a wrong use of the command line as Typer does, and a defect with its traceback; the exit code."""
    import io
    import traceback

    from headrace.cli.terminal import say

    if hasattr(error, "show"):  # an error of Click, which Typer brings under another name in each version
        text = io.StringIO()
        error.show(file=text)
        say(text.getvalue().rstrip(), err=True)
        return 2
    say(f"{''.join(traceback.format_exception(error))}This is a bug in headrace.", err=True)
    return 1
