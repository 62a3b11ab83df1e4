"""Chat files: conversations or message trees in JSON, JSON Lines, CSV, Parquet or Arrow, chosen by suffix."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import orjson

from headrace.documents.file_names import SUFFIXES, suffixes
from headrace.documents.readers.base import Item, Part, Reader, Record, Tally
from headrace.documents.readers.conversations import conversation
from headrace.documents.readers.json import json_items
from headrace.documents.readers.jsonl import byte_ranges, line_items
from headrace.documents.readers.message_trees import grown, is_message, is_tree
from headrace.documents.readers.streams import blocks
from headrace.documents.sources import InputFile
from headrace.recipe.schema import Source


class Chat(Reader):
    """One conversation per row, or of each message tree. Fields that are not part of it go to ``meta``."""

    def split(self, file: InputFile) -> list[Part]:
        """Byte ranges of JSON Lines, row groups of Parquet."""
        container = _container(file)
        if container == "jsonl":
            return [Part()] if _holds_messages(file) else byte_ranges(file)
        if container == "parquet":
            from headrace.documents.readers.parquet import Parquet, column_names

            return [Part()] if {"message_id", "parent_id"} <= column_names(file) else Parquet().split(file)
        return [Part()]

    def read(self, file: InputFile, part: Part, source: Source, tally: Tally) -> Iterator[Item]:
        """One item per row; of message trees, one per conversation, and the other rows skipped."""
        return grown(self._rows(file, part, tally), source.paths, tally)

    def _rows(self, file: InputFile, part: Part, tally: Tally) -> Iterator[Item]:
        shape = partial(_shaped, tally=tally)
        container = _container(file)
        if container == "parquet":
            from headrace.documents.readers.parquet import parquet_items

            return parquet_items(file, part, tally, shape, lambda schema: None)
        if container == "arrow":
            from headrace.documents.readers.arrow import arrow_items

            return arrow_items(file, tally, shape, lambda schema: None)
        if container == "csv":
            from headrace.documents.readers.csv import csv_items

            return csv_items(file, tally, shape, lambda header: None)
        if container == "jsonl":
            return line_items(file, part, tally, shape)
        return json_items(file, tally, shape)


def _shaped(row: int, value: Any, tally: Tally) -> Item:
    """The conversation in a row; a message or tree is left as it is for now."""
    return Record(row, "", value) if is_message(value) or is_tree(value) else conversation(row, value, tally)


def _holds_messages(file: InputFile) -> bool:
    """Whether a plain file's first line is a message of a tree, which may go on in any later line."""
    if file.compression is not None or file.remote:
        return False
    head = next(blocks(file, Tally()), b"")
    try:
        return is_message(orjson.loads(head.lstrip().partition(b"\n")[0]))
    except orjson.JSONDecodeError:
        return False


def _container(file: InputFile) -> str:
    return SUFFIXES.get(suffixes(file.name)[0], "json")
