"""The command line, called in this process or in one of its own."""

from __future__ import annotations

import gc
import io
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pyarrow as pa
import pytest

from headrace.cli import main
from headrace.cli.signals import ASKED

HEADRACE = str(Path(sys.executable).with_name("headrace"))
# Arrow asks once in a process whether there is pandas, and the command would have it believe that there is none.
pa.array([0])


def headrace(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, which has what each process of its own would import for 3 s."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    signals, garbage = {number: signal.getsignal(number) for number in ASKED}, gc.get_threshold()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["headrace", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    gc.set_threshold(*garbage)
    for number, handler in signals.items():
        signal.signal(number, handler)
    said, complained = (stream.buffer.getvalue().decode() for stream in (out, err))
    return checked(subprocess.CompletedProcess(sys.argv, int(ended.value.code or 0), said, complained), check)


def apart(*arguments: object, check: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, as a user does."""
    command = [HEADRACE, *map(str, arguments)]
    return checked(subprocess.run(command, capture_output=True, text=True, timeout=500, **options), check)


def checked(done: subprocess.CompletedProcess[str], check: bool) -> subprocess.CompletedProcess[str]:
    if check and done.returncode:
        raise AssertionError(f"{done.args} exited {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done
