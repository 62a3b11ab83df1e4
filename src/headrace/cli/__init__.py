"""The command line: ``headrace COMMAND``. One file for each command; what a command does lives in the other rooms."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit: 0 done, 1 a defect, 2 something the user can mend, 130 stopped by Ctrl-C."""
    from headrace.cli.app import app

    try:
        app()
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(130)
