"""Every error that a user sees says what to do about it."""

from __future__ import annotations

import ast
import errno
from pathlib import Path

import pytest

from headrace.flow.storage import cannot_read

SRC = Path(__file__).parents[1] / "src" / "headrace"


def without_fix(path: Path) -> list[int]:
    """The lines of errors that have neither a fix nor a list of what was found."""
    lines = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "UserError":
            given = {keyword.arg for keyword in node.keywords} & {"fix", "found", None}
            starred = any(isinstance(argument, ast.Starred) for argument in node.args)
            empty = len(node.args) > 2 and getattr(node.args[2], "value", "some") == ""
            if not (given or starred) and (len(node.args) < 3 or empty):
                lines.append(node.lineno)
    return lines


def test_errors_say_what_to_do():
    files = sorted(SRC.rglob("*.py"))
    assert not {str(path.relative_to(SRC)): lines for path in files if (lines := without_fix(path))}


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOENT, "restore it"), (errno.EACCES, "permissions"), (errno.EIO, "its disk")]
)
def test_what_cannot_be_read_says_what_to_do(number, words):
    assert words in cannot_read("The list", "lists/repos.txt", OSError(number, "no")).fix
