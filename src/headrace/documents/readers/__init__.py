"""Readers: one file per format."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path

from headrace.documents.readers.base import Reader
from headrace.documents.readers.user import UserReader
from headrace.documents.sources import InputFile
from headrace.functions.calling import Note
from headrace.recipe.schema import Source

# Imported on first use: some need heavy libraries.
READERS = {
    "jsonl": "jsonl:JsonLines",
    "json": "json:Json",
    "csv": "csv:Csv",
    "parquet": "parquet:Parquet",
    "arrow": "arrow:Arrow",
    "text": "text:Text",
    "docstrings": "docstrings:Docstrings",
    "pydoc_topics": "pydoc_topics:PydocTopics",
    "chat": "chat:Chat",
    "docstring_chat": "docstring_chat:DocstringChat",
}


def reader_of(file: InputFile, name: str, source: Source, run: Path, note: Note | None) -> Reader:
    """The reader for a file of a source: one of headrace's, or a user-defined one from the run's copy of its code.

    Raises:
        UserError: the user-defined reader cannot be loaded.
    """
    own = source.readers.get(file.format)
    return reader(file.format) if own is None else UserReader(own.load(run), name, note)


@cache
def reader(format: str) -> Reader:
    """The reader for a format of the recipe, other than ``auto``."""
    module, _, name = READERS[format].partition(":")
    made: Reader = getattr(importlib.import_module(f"headrace.documents.readers.{module}"), name)()
    return made
