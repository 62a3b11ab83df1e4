"""What a user should be told once per run, whichever process finds it: warnings of one class, forwarded as events."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO


class Notice(UserWarning):
    """Something works, but not as the user may expect. Raise with ``warnings.warn(text, Notice)``."""


@contextmanager
def notices_to(say: Callable[[str], None]) -> Iterator[None]:
    """Send notices to ``say`` instead of standard error; other warnings are unaffected."""
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
