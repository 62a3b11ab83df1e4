"""What a chat template may spend, counted rather than timed so that every machine refuses the same conversations: steps
(turns of loops, calls, filters) and characters made.
"""

from __future__ import annotations

from typing import Any

from jinja2.exceptions import TemplateRuntimeError

# A published template of 300 lines takes about 30 steps and 3 times the characters of a message.
STEPS, CHARACTERS = 100_000, 16 << 20
PER_CHARACTER = 64  # characters made for each one of the conversation
ENTRY = 128  # characters that are read as fast as an entry of a list is visited
READ_IN_A_STEP = 1024  # characters that a comparison, filter, slice or method looks at; a turn of a loop takes as long


class LimitError(TemplateRuntimeError):
    """The budget is spent, or would be."""


class Budget:
    """What is left of it.

    Every method raises :class:`LimitError` when that is too little.

    Attributes:
        steps: turns, calls and filters.
        characters: of values that are made.
    """

    def __init__(self, steps: int, characters: int) -> None:
        self.steps, self.characters = steps, characters

    def step(self) -> None:
        """Pay for a step."""
        self.steps -= 1
        if self.steps < 0:
            raise LimitError("it takes too many steps")

    def read(self, *values: Any) -> None:
        """Pay for looking at values."""
        for value in values:
            self.steps -= size_of(value, self.steps * READ_IN_A_STEP, ENTRY) // READ_IN_A_STEP
        self.step()

    def afford(self, size: int) -> None:
        """Check that something of a size may be made."""
        if size > self.characters:
            raise LimitError("it makes too much text")

    def made(self, value: Any) -> Any:
        """Pay for a value."""
        size = len(value) if isinstance(value, str) else size_of(value, self.characters)
        self.afford(size)
        self.characters -= size
        return value


def size_of(value: Any, most: int, each: int = 1) -> int:
    """About the characters of a value as text, and ``each`` for each entry of lists; or more than ``most``."""
    total, waiting = 0, [value]
    while waiting and total <= most:
        held = waiting.pop()
        if isinstance(held, str | bytes):
            total += len(held) + 4
        elif isinstance(held, dict):
            waiting += [*held.keys(), *held.values()]
            total += 4 + each * len(held)
        elif isinstance(held, list | tuple | set | frozenset):
            waiting += held
            total += 4 + each * len(held)
        elif isinstance(held, range):
            total += 8 * len(held)
        elif isinstance(held, int):
            total += 8 + held.bit_length() // 3
        else:
            total += 8
    return total
