"""Input rows that did not become documents: what the quarantine says about them."""

from __future__ import annotations

import re
from typing import Any

import orjson

from headrace.flow.artifact import Artifact

ORIGIN = re.compile(r"([^:]+):(.+):([0-9]{1,18})", re.DOTALL)


def find_unread(documents: Artifact, origin: str) -> dict[str, Any] | None:
    """The quarantine entry for a row.

    Args:
        documents: the documents artifact.
        origin: ``source:file:row``, with rows from 0.

    Returns:
        ``{"source", "file", "line", "error", "excerpt"}`` with lines from 1; None if the row is not in quarantine.
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
