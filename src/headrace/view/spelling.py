"""Bytes of tokens as text that shows every one of them."""

from __future__ import annotations

import re

from headrace.visible import visible

_BROKEN = re.compile("[\udc80-\udcff]+")


def spelled(data: bytes) -> str:
    """Bytes as text: those that are no UTF-8 by their values, ``<E2 82>``; what cannot be seen by name, ``␍``. Tabs and
    line feeds stay."""
    text = data.decode("utf-8", "surrogateescape").replace("\r", "␍")
    return visible(text if text.isascii() else _BROKEN.sub(lambda found: f"<{hexadecimal(found[0])}>", text))


def hexadecimal(data: bytes | str) -> str:
    """The values of bytes: ``E2 82``."""
    return (data if isinstance(data, bytes) else data.encode("utf-8", "surrogateescape")).hex(" ").upper()
