"""What cleaning kept of each source, in documents and bytes.

After the table of SlimPajama's authors (Cerebras 2023), who give for each source the share of documents that are too
short and the share of bytes that are copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headrace.report.facts import SourceFacts

NAMED = ("duplicate", "short")


@dataclass(frozen=True)
class Cleaned:
    """A source, or all of them.

    Attributes:
        name: the source's name, or ``all``.
        documents: ``read``, ``kept``, ``duplicate``, ``short`` and ``other`` documents; the last four add up to the
            first.
        bytes: the same in UTF-8 bytes of their text.
    """

    name: str
    documents: dict[str, int]
    bytes: dict[str, int]


def cleaned(sources: Sequence[SourceFacts]) -> list[Cleaned]:
    """Every source, then all; [] while verdicts or the sizes of removed documents are missing."""
    if not sources or any(s.kept is None or s.lengths is None for s in sources):
        return []
    rows = [Cleaned(s.name, _parts(s.documents, s.removed), _parts(s.bytes, s.removed_bytes)) for s in sources]
    parts = list(rows[0].documents)
    total = Cleaned(
        "all",
        {part: sum(row.documents[part] for row in rows) for part in parts},
        {part: sum(row.bytes[part] for row in rows) for part in parts},
    )
    return [*rows, total] if len(rows) > 1 else rows


def _parts(read: int, removed: dict[str, int]) -> dict[str, int]:
    named = {reason: removed.get(reason, 0) for reason in NAMED}
    gone = sum(removed.values())
    return {"read": read, "kept": read - gone, **named, "other": gone - sum(named.values())}
