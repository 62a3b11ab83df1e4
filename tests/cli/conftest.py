"""Commands called in this process, which is faster than starting Python for each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from subprocess import CompletedProcess

import pytest

from headrace.cli import main


@pytest.fixture
def command(monkeypatch, capsys) -> Callable[..., CompletedProcess[str]]:
    """``command("status", run)``: the exit code and what was printed."""

    def call(*arguments: object) -> CompletedProcess[str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["headrace", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return CompletedProcess(sys.argv, int(ended.value.code or 0), said.out, said.err)

    return call
