"""The published benchmarks that a recipe can name, and the parts of their items."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

BenchmarkKind = Literal["humaneval", "mbpp", "apps", "ds1000", "gsm8k", "bigcodebench", "evoeval", "livecodebench"]


@dataclass(frozen=True)
class Parts:
    """The parts of a benchmark's items.

    Attributes:
        searched: those searched for unless the recipe names others.
        more: those that it can name as well.
    """

    searched: tuple[str, ...]
    more: tuple[str, ...] = ()

    @property
    def every(self) -> tuple[str, ...]:
        """All parts."""
        return (*self.searched, *self.more)


# Tests are left out: in most benchmarks they outweigh the rest, so that a copy of the task and its solution would hold
# less than half of the item. APPS has 232,444 solutions, more text than all other benchmarks together.
PARTS: dict[BenchmarkKind, Parts] = {
    "humaneval": Parts(("prompt", "docstring", "solution"), ("tests", "entry_point")),
    "mbpp": Parts(("question", "solution"), ("tests",)),
    "apps": Parts(("question",), ("solutions", "starter_code", "tests")),
    "ds1000": Parts(("prompt", "solution"), ("tests",)),
    "gsm8k": Parts(("question", "answer")),
    "bigcodebench": Parts(("prompt", "instruction", "docstring", "solution"), ("tests", "entry_point")),
    "evoeval": Parts(("prompt", "docstring", "solution"), ("tests", "entry_point")),
    "livecodebench": Parts(("question", "solution"), ("starter_code", "tests")),
}


def known_as(name: str) -> BenchmarkKind | None:
    """The published benchmark that has a name, whatever its case, hyphens and underscores: ``DS-1000`` is ``ds1000``;
    ``HumanEval+``, whose files have the same fields, is ``humaneval``."""
    plain = re.sub("plus$", "", re.sub("[-_]", "", name.lower()))
    return next((kind for kind in get_args(BenchmarkKind) if kind == plain), None)
