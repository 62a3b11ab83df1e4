"""What a user is to hear once in a run, whichever process finds it out: warnings of one kind, passed on as events."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO


class Notice(UserWarning):
    """Something that works, but otherwise than the user may think. Given by ``warnings.warn(text, Notice)``."""


@contextmanager
def notices_to(say: Callable[[str], None]) -> Iterator[None]:
    """Pass notices to ``say`` instead of standard error; other warnings go where they went."""
    show = warnings.showwarning

    def pass_on(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, Notice):
            say(str(message))
        else:
            show(message, category, filename, lineno, file, line)

    warnings.showwarning = pass_on
    try:
        yield
    finally:
        warnings.showwarning = show
