"""Functions of scripts and notebooks are written down with what they use, or say what they cannot take along."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from headrace.errors import UserError
from headrace.functions.source_text import reference

SCRIPT = """\
import math, os.path as paths, re, sys
from collections import Counter
from dataclasses import dataclass
from typing import Optional
import headrace
from headrace.errors import UserError
from headrace.functions.loading import load_text
from headrace.functions.source_text import reference

LIMIT, NAMES = 3, {"a": [1, 2.5, None]}
WORD = re.compile("[a-z]+", re.I)
UNUSED = object()
HANDLE = open(__file__)

def even(n): return n == 0 or odd(n - 1)
def odd(n): return n != 0 and even(n - 1)

@dataclass
class Base:
    by: int = LIMIT
    def twice(self): return self.by * 2
class Scale(Base):
    def __init__(self, more): self.more = more
    def __call__(self, document) -> float: return math.sqrt(len(document)) * self.by + self.more + 0 * self.twice()

@headrace.per_batch
def batch(b, again: Optional[int] = LIMIT): return [even(len(WORD.findall(t))) for t in b]
def many(d): return Counter(d).most_common(1)[0], paths.basename("x/y"), NAMES, sum(len for len in [1])
def bad(d): return HANDLE
def outer():
    def inner(d): return 1
    return inner

if len(sys.argv) > 1:  # a worker never comes here
    for function, argument in ((batch, ["a b", "c"]), (many, "aab"), (Scale, None)):
        told = reference(function)
        loaded = load_text(told["code"], told["python"])
        print(loaded(argument) if argument else loaded(1)("abcd"))
        assert "UNUSED" not in told["code"] and reference(function) == told
        assert getattr(loaded, "__headrace_takes__", None) == getattr(function, "__headrace_takes__", None)
    for function in (bad, outer(), lambda d: 1, len):
        try:
            print(reference(function))
        except UserError as error:
            print(error.what)
"""


def test_from_a_script(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, "script.py", "go"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "[True, False]",
        "(('a', 2), 'y', {'a': [1, 2.5, None]}, 1)",
        "7.0",
        "The function uses 'HANDLE', a TextIOWrapper that cannot be saved with it.",
        "The source of the function 'inner' is not available, or it is not defined at the top level of its script.",
        "The source of the function '<lambda>' is not available, or it is not defined at the top level of its script.",
        "<built-in function len> has no Python source.",
    ]


def of_this_file(document) -> int:
    return 1


def test_from_a_file_and_a_package() -> None:
    assert reference(of_this_file) == {"python": f"{Path(__file__).absolute()}:of_this_file"}
    with pytest.raises(UserError, match="not defined at the top level of a file"):
        reference(reference)
