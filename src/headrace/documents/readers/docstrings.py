"""Docstrings of Python modules as prose: one document per module."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from headrace.documents.readers.base import Bad, Item, Part, Reader, Record, Skipped, Tally
from headrace.documents.readers.modules import documented, module_name, parse
from headrace.documents.sources import InputFile
from headrace.recipe.schema import Source


class Docstrings(Reader):
    """The docstrings of a module, its classes and functions, each under its qualified name."""

    def read(self, file: InputFile, part: Part, source: Source, tally: Tally) -> Iterator[Item]:
        """One item; a module without docstrings is skipped."""
        tally.read += 1
        parsed = parse(file, tally)
        if isinstance(parsed, Bad):
            yield parsed
            return
        tree, _ = parsed
        sections = []
        for name, node in documented(tree, module_name(file.name)):
            if doc := (ast.get_docstring(node) or "").strip():
                sections.append(f"{name}\n\n{doc}\n")
        text = "\n\n".join(sections)
        yield Record(0, text, {"path": file.name}) if text else Skipped(0)
