"""Run a function in a separate process, which it may crash: C libraries do so on damaged bytes."""

from __future__ import annotations

import atexit
import importlib
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import closing, suppress
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


class Isolated:
    """A process that runs a generator function, once for each question.

    Args:
        call: ``module:function``.
    """

    def __init__(self, call: str) -> None:
        command = [sys.executable, "-m", "headrace.flow.isolation", call]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._owner = os.getpid()

    @property
    def usable(self) -> bool:
        """Whether it runs, and is this process's own rather than one that was there before a fork."""
        return self._owner == os.getpid() and self._process.poll() is None

    def ask(self, *arguments: Any) -> Iterator[Any]:
        """Yield what the function yields, as it arrives. Take all of it before the next question.

        Args:
            arguments: the function's; they and what it yields must be JSON values.

        Raises:
            UserError: raised by the function.
            RuntimeError: the function raised something else; the message is its traceback.
            ProcessDied: the process was ended by a signal.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # it has died: what it says ends, as below
            self._process.stdin.write(orjson.dumps(arguments, option=orjson.OPT_APPEND_NEWLINE))
            self._process.stdin.flush()
        for line in self._process.stdout:
            kind, value = orjson.loads(line)
            if kind == "end":
                return
            if kind == "user":
                raise UserError(*value)
            if kind == "error":
                raise RuntimeError(value)
            yield value
        code = self._process.wait()
        if code < 0:
            raise ProcessDied(-code)
        raise RuntimeError(f"the process ended with code {code}")

    def close(self) -> None:
        """End the process."""
        if self._owner == os.getpid():
            with self._process as process:
                process.kill()


class Kept:
    """An isolated process that starts with the first question and is kept for the next: it takes half a second to
    start. Threads take turns.

    Args:
        call: ``module:function``.
    """

    def __init__(self, call: str) -> None:
        self._call, self._turn = call, threading.Lock()
        self._process: Isolated | None = None

    def ask(self, *arguments: Any) -> Iterator[Any]:
        """See :meth:`Isolated.ask`."""
        with self._turn:
            if self._process is None or not self._process.usable:
                self._process = Isolated(self._call)
                atexit.register(self._process.close)
            try:
                yield from self._process.ask(*arguments)
            except UserError:
                raise
            except BaseException:
                self._process.close()  # who does not take all of an answer cannot ask again
                raise


def run_isolated(call: str, *arguments: Any) -> Iterator[Any]:
    """Run a generator function in another process, and yield what it yields as it arrives.

    Args:
        call: ``module:function``.
        arguments: as for :meth:`Isolated.ask`; and so what is raised.
    """
    with closing(Isolated(call)) as process:
        yield from process.ask(*arguments)


def main() -> None:
    """``python -m headrace.flow.isolation MODULE:FUNCTION``, with the arguments on standard input, a list a line."""
    module, _, function = sys.argv[1].partition(":")

    def say(kind: str, value: Any) -> None:
        sys.stdout.buffer.write(json_line([kind, value]))
        sys.stdout.buffer.flush()

    for question in sys.stdin.buffer:
        try:
            for value in getattr(importlib.import_module(module), function)(*orjson.loads(question)):
                say("value", value)
            say("end", None)
        except UserError as error:
            say("user", [error.what, error.where, error.fix])
        except Exception:
            say("error", traceback.format_exc())


if __name__ == "__main__":
    main()
