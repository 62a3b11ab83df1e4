"""Conversations made from Python functions: signature and docstring are the request, the body is the answer.

The pairing is that of CodeSearchNet (Husain et al., 2019). Nothing is generated: request and answer together are the
function as written.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator

from headrace.documents.readers.base import Bad, Item, Message, Part, Reader, Record, Skipped, Tally
from headrace.documents.readers.modules import documented, module_name, parse
from headrace.documents.sources import InputFile
from headrace.recipe.schema import Source

REQUEST = "Complete this Python function.\n\n"
MIN_DOCSTRING = 20  # characters; CodeSearchNet requires three words, and shorter docstrings request nothing


class DocstringChat(Reader):
    """One conversation per function that has a docstring and does something."""

    def read(self, file: InputFile, part: Part, source: Source, tally: Tally) -> Iterator[Item]:
        """One item per function with a docstring; ``row`` is the line of its ``def``. Trivial functions are skipped."""
        parsed = parse(file, tally)
        if isinstance(parsed, Bad):
            tally.read += 1
            yield parsed
            return
        tree, data = parsed
        lines = _lines(data)
        for name, node in documented(tree, module_name(file.name)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or ast.get_docstring(node) is None:
                continue
            tally.read += 1
            pair = None if _trivial(node) else _pair(node, lines)
            row = node.lineno - 1
            if pair is None:
                yield Skipped(row)
            else:
                turns = [Message("user", REQUEST + pair[0]), Message("assistant", pair[1])]
                yield Record(row, "", {"path": file.name, "language": "python", "function": name}, turns)


def _lines(data: bytes) -> list[str]:
    """The lines as the parser counts them: form feeds and Unicode separators do not end a line."""
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    return list(io.StringIO(data.decode(encoding), newline=""))


def _trivial(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether the docstring says too little, or the body only passes, raises, or returns a constant or name."""
    if len(ast.get_docstring(node) or "") < MIN_DOCSTRING:
        return True
    body = node.body[1:]
    if len(body) != 1:
        return not body
    only = body[0]
    if isinstance(only, ast.Pass | ast.Raise):
        return True
    value = only.value if isinstance(only, ast.Return | ast.Expr) else body
    return value is None or isinstance(value, ast.Constant | ast.Name)


def _pair(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> tuple[str, str] | None:
    """(Signature and docstring, body) as written, dedented to the ``def``; None if they share a line."""
    doc_end, end = node.body[0].end_lineno, node.end_lineno
    if doc_end is None or end is None or node.body[1].lineno <= doc_end:
        return None
    first = lines[node.lineno - 1]
    indent = first[: len(first) - len(first.lstrip())]

    def outdented(begin: int, stop: int) -> str:
        return "".join(line.removeprefix(indent) for line in lines[begin:stop]).rstrip("\r\n")

    return outdented(node.lineno - 1, doc_end), outdented(doc_end, end)
