"""The columns that documents have in other people's formats: the same in tables and in JSON Lines.

``meta``, ``evidence`` and a message's other ``fields`` are JSON in a string. Their shape differs from document to
document, and readers of tables, ``datasets`` among them, fail at the first that is not like those before it.
"""

from __future__ import annotations

from typing import Any

import orjson
import pyarrow as pa

from headrace.formats.corpus import CONVERSATIONS, FOLDERS, REMOVED

MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string()), ("loss", pa.bool_()), ("fields", pa.string())])
FACTS = ("source", "license", "repo", "path", "language", "meta", "origin_file")


def schema(folder: str) -> pa.Schema:
    """The columns in a folder."""
    kind = FOLDERS.index(folder)
    said = ("messages", pa.list_(MESSAGE)) if kind == CONVERSATIONS else ("text", pa.large_string())
    fields = [("id", pa.string()), said, *((name, pa.string()) for name in FACTS), ("origin_row", pa.int64())]
    if kind == REMOVED:
        fields += [("reason", pa.string()), ("evidence", pa.string())]
    return pa.schema(fields)


def records(table: pa.Table, folder: str) -> pa.Table:
    """Documents with the columns of :func:`schema`.

    Args:
        table: rows of the documents artifact, with ``reason`` and ``evidence``.
        folder: where they go.
    """
    columns = schema(folder)
    if "messages" in columns.names:
        turns = [_messages(row) for row in table.select(["text", "turns"]).to_pylist()]
        table = table.append_column("messages", pa.array(turns, columns.field("messages").type))
    return table.select(columns.names).cast(columns)


def _messages(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The turns of a conversation as OpenAI's messages, with ``loss`` where the data set it, and their other fields."""
    return [
        {
            "role": turn["role"],
            "content": row["text"][turn["start"] : turn["end"]],
            "loss": turn.get("loss"),
            "fields": orjson.dumps(turn["fields"]).decode() if "fields" in turn else None,
        }
        for turn in orjson.loads(row["turns"])
    ]
