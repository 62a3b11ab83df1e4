"""How deep values may be nested, and following them that far."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

DEPTH = 1023  # orjson parses 1,024 levels, one of which is the row


@contextmanager
def deep() -> Iterator[None]:
    """Let Python's parser, writer and repr follow ``DEPTH`` levels, at one or two calls each.

    Otherwise the depth they reach would depend on the caller.
    """
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(before + 4 * DEPTH)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
