"""The documents of a synthetic source, as records: what a step wrote, rather than files that somebody else did."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from headrace.documents.readers.base import Message, Record, Tally
from headrace.documents.store import read_batches
from headrace.flow.artifact import Artifact

BATCH_BYTES = 8 << 20
ABOUT = "synthetic"
"""The field of ``meta`` that says how a document was made: ``generator``, ``method``, ``prompt`` (its hash), ``seeds``
(ids of the documents that inspired it), ``licenses`` (theirs), ``requests`` (the keys of the answers), ``finding`` and
``evidence`` if it is not kept, and what the method tells."""


def made_records(made: Artifact, shard: int, tally: Tally) -> Iterator[Record]:
    """The records of a shard of a synthetic source.

    Args:
        made: the artifact of the step that made it.
        shard: the shard's number.
        tally: counts the rows.
    """
    about = about_made(made)
    for batch in read_batches(made.shard_path(shard), None, BATCH_BYTES):
        for row in batch.to_pylist():
            tally.read += 1
            yield _record(row, about)


def about_made(made: Artifact) -> dict[str, Any]:
    """What is recorded of all documents of a synthetic source alike."""
    return {name: made.manifest.extra[name] for name in ("generator", "method", "prompt")}


def _record(row: dict[str, Any], about: dict[str, Any]) -> Record:
    told = {**about, **orjson.loads(row["about"]), "seeds": row["seeds"], "requests": row["requests"]}
    if row["finding"] is not None:
        told |= {"finding": row["finding"], "evidence": orjson.loads(row["evidence"])}
    fields = {name: row[name] for name in ("license", "language") if row[name] is not None}
    turns = None if row["turns"] is None else [Message(*turn) for turn in orjson.loads(row["turns"])]
    return Record(row["number"], "" if turns else row["text"], {**fields, ABOUT: told}, turns)
