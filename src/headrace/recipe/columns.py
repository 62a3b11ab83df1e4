"""The columns that rules can use, with their types."""

from __future__ import annotations

DOCUMENT = {
    "id": "str",
    "source": "str",
    "origin_file": "str",
    "origin_row": "int",
    "license": "str",
    "repo": "str",
    "path": "str",
    "language": "str",
}
"""Columns of documents. Their text is not among them: measures look at that."""

MEASURES = {
    "characters": "int",
    "bytes": "int",
    "words": "int",  # len(text.split())
    "lines": "int",  # len(text.splitlines())
    "clean_length": "int",  # lowercased, without ASCII punctuation, whitespace collapsed and stripped
    "clean_length_no_spaces": "int",
    "max_line_length": "int",  # characters; 0 for an empty text
    "mean_line_length": "float",
    "alphanumeric_share": "float",  # of all characters; null for an empty text, as are the next two
    "alphabetic_share": "float",
    "encoded_share": "float",  # base64, hexadecimal and escapes, see encoded_data
    "generated_mark": "str",  # the first of GENERATED_MARKS found in the first five lines, or null
    "xml_header": "bool",  # whether an XML declaration begins in the first 100 characters
    "format": "str",  # html, json, python, ...; null if unknown
    "visible_characters": "int",  # HTML only, else null
    "visible_share": "float",  # HTML only, else null
}
"""What headrace measures about every document, see :mod:`headrace.select.measures.step`."""
