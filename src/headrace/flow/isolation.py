"""Run a function in a separate process, which it may crash: C libraries do so on damaged bytes."""

from __future__ import annotations

import importlib
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import orjson

from headrace.errors import UserError
from headrace.visible import json_line


class ProcessDied(Exception):  # noqa: N818 - what happened to the process, not to this one
    """The process was ended by a signal.

    Attributes:
        signal: the signal's number.
    """

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(f"signal {number} ({self.signal.name})")


def run_isolated(call: str, *arguments: Any) -> Iterator[Any]:
    """Run a generator function in another process, and yield what it yields as it arrives.

    Args:
        call: ``module:function``.
        arguments: its arguments; they and what it yields must be JSON values.

    Raises:
        UserError: raised by the function.
        RuntimeError: the function raised something else; the message is its traceback.
        Died: the process was ended by a signal.
    """
    command = [sys.executable, "-m", "headrace.flow.isolation", call]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(orjson.dumps(arguments))
            process.stdin.close()
            for line in process.stdout:
                kind, value = orjson.loads(line)
                if kind == "user":
                    raise UserError(*value)
                if kind == "error":
                    raise RuntimeError(value)
                yield value
        finally:
            process.kill()
            code = process.wait()
    if code < 0:
        raise ProcessDied(-code)


def main() -> None:
    """``python -m headrace.flow.isolation MODULE:FUNCTION``, with the arguments on standard input."""
    module, _, function = sys.argv[1].partition(":")

    def say(kind: str, value: Any) -> None:
        sys.stdout.buffer.write(json_line([kind, value]))
        sys.stdout.buffer.flush()

    try:
        for value in getattr(importlib.import_module(module), function)(*orjson.loads(sys.stdin.buffer.read())):
            say("value", value)
    except UserError as error:
        say("user", [error.what, error.where, error.fix])
    except Exception:
        say("error", traceback.format_exc())


if __name__ == "__main__":
    main()
