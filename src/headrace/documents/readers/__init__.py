"""Readers: one file for each format."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path

from headrace.documents.readers.base import Reader
from headrace.documents.readers.own import Own
from headrace.documents.sources import InputFile
from headrace.functions.calling import Note
from headrace.recipe.schema import Source

# Imported when first used: some need heavy libraries.
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
    """The reader of a file of a source: one of headrace's, or of the user's own from a run's copy of its code.

    Raises:
        UserError: the user's cannot be loaded.
    """
    own = source.readers.get(file.format)
    return reader(file.format) if own is None else Own(own.load(run), name, note)


@cache
def reader(format: str) -> Reader:
    """The reader of a format of the recipe, other than ``auto``."""
    module, _, name = READERS[format].partition(":")
    made: Reader = getattr(importlib.import_module(f"headrace.documents.readers.{module}"), name)()
    return made
