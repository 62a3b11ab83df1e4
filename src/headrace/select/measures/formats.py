"""A document's format as one lowercase word, such as html or json, for rules that depend on it.

A document's own language takes precedence over its path's suffix. Names are the folder names of The Stack.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

# Suffixes of formats that a rule depends on; for other files the language is enough, or nothing is known.
_SUFFIXES = {
    ".htm": "html", ".html": "html", ".xht": "html", ".xhtml": "html",
    ".json": "json", ".geojson": "json", ".jsonld": "json", ".webmanifest": "json", ".ipynb": "json",
    ".markdown": "markdown", ".md": "markdown", ".mkd": "markdown", ".mkdn": "markdown",
    ".rst": "restructuredtext", ".rest": "restructuredtext",
    ".man": "roff", ".roff": "roff", ".mdoc": "roff",
    ".smt": "smt", ".smt2": "smt",
    ".latex": "tex", ".ltx": "tex", ".sty": "tex", ".tex": "tex",
    ".text": "text", ".txt": "text",
    ".xml": "xml", ".xsd": "xml", ".xsl": "xml", ".xslt": "xml", ".svg": "xml", ".rss": "xml", ".plist": "xml",
    ".yaml": "yaml", ".yml": "yaml",
}  # fmt: skip
_SAME = {
    "plain-text": "text", "roff-manpage": "roff", "xslt": "xml",
    "svg": "xml", "jsonld": "json", "json-with-comments": "json",
}  # fmt: skip

DATA_LIKE = frozenset({"html", "json", "markdown", "restructuredtext", "roff", "smt", "tex", "text", "xml", "yaml"})
"""Formats that may have long lines: those StarCoder 2 exempts (2402.19173, 2.4), reStructuredText and YAML."""

NO_LETTERS = frozenset({"motorola-68k-assembly", "webassembly"})
"""Languages with few letters, which StarCoder 2 exempts from the rule about letters."""


def format_of(language: str | None, path: str | None) -> str | None:
    """The format of one document, or None if unknown.

    Args:
        language: the documents' column, in any case; spaces count as hyphens.
        path: the documents' column; only its suffix matters.
    """
    if language:
        name = language.lower().replace(" ", "-")
        return _SAME.get(name, name)
    return _SUFFIXES.get(os.path.splitext(path)[1].lower()) if path else None


def formats_of(languages: Sequence[str | None], paths: Sequence[str | None]) -> list[str | None]:
    """The format of each document."""
    return [format_of(language, path) for language, path in zip(languages, paths, strict=True)]
