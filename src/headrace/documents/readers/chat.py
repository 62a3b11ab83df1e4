"""Chat files: conversations in JSON, JSON Lines, CSV, Parquet or Arrow, chosen by suffix."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from headrace.documents.file_names import SUFFIXES, suffixes
from headrace.documents.readers.base import Item, Part, Reader, Tally
from headrace.documents.readers.conversations import conversation
from headrace.documents.readers.json import json_items
from headrace.documents.readers.jsonl import byte_ranges, line_items
from headrace.documents.sources import InputFile
from headrace.recipe.schema import Source


class Chat(Reader):
    """One conversation per row. Fields that are not part of it go to ``meta``."""

    def split(self, file: InputFile) -> list[Part]:
        """Byte ranges of JSON Lines, row groups of Parquet."""
        container = _container(file)
        if container == "jsonl":
            return byte_ranges(file)
        if container == "parquet":
            from headrace.documents.readers.parquet import Parquet

            return Parquet().split(file)
        return [Part()]

    def read(self, file: InputFile, part: Part, source: Source, tally: Tally) -> Iterator[Item]:
        """One item per row."""
        shape = partial(conversation, tally=tally)
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


def _container(file: InputFile) -> str:
    return SUFFIXES.get(suffixes(file.name)[0], "json")
