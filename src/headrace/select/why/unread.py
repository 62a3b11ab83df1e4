"""Rows of the input that became no document: what the quarantine says of them."""

from __future__ import annotations

import re
from typing import Any

import orjson

from headrace.flow.artifact import Artifact

ORIGIN = re.compile(r"([^:]+):(.+):(\d+)", re.DOTALL)


def find_unread(documents: Artifact, origin: str) -> dict[str, Any] | None:
    """The entry of the quarantine for a row.

    Args:
        documents: the documents artifact.
        origin: ``source:file:row``, the row from 0.

    Returns:
        ``{"source", "file", "line", "error", "excerpt"}`` with the line from 1; None if the quarantine has no such row.
    """
    named = ORIGIN.fullmatch(origin)
    if named is None:
        return None
    wanted = (named[1], named[2], int(named[3]) + 1)
    for entry in documents.manifest.files:
        if entry["name"].startswith("quarantine/"):
            with open(documents.file_path(entry["name"]), "rb") as lines:
                for line in lines:
                    bad: dict[str, Any] = orjson.loads(line)
                    if (bad["source"], bad["file"], bad["line"]) == wanted:
                        return bad
    return None
