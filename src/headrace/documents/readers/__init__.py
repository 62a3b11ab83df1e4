"""Readers: one file for each format."""

from __future__ import annotations

import importlib
from functools import cache

from headrace.documents.readers.base import Reader

# Imported when first used: some need heavy libraries.
READERS = {
    "jsonl": "jsonl:JsonLines",
    "json": "json:Json",
    "parquet": "parquet:Parquet",
    "arrow": "arrow:Arrow",
    "text": "text:Text",
    "docstrings": "docstrings:Docstrings",
    "pydoc_topics": "pydoc_topics:PydocTopics",
    "chat": "chat:Chat",
    "docstring_chat": "docstring_chat:DocstringChat",
}


@cache
def reader(format: str) -> Reader:
    """The reader of a format of the recipe, other than ``auto``."""
    module, _, name = READERS[format].partition(":")
    made: Reader = getattr(importlib.import_module(f"headrace.documents.readers.{module}"), name)()
    return made
