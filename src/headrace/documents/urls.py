"""The address of a document, where its record has one."""

from __future__ import annotations

from typing import Any

import orjson


def url_of(meta: str | None) -> str | None:
    """The record's field ``url``, which data sets of the web have; None if it is not text.

    Args:
        meta: the column of the same name: a JSON object or null.
    """
    if meta is None or '"url"' not in meta:
        return None
    found: Any = orjson.loads(meta)
    url = found.get("url") if isinstance(found, dict) else None
    return url if isinstance(url, str) else None
