"""Markdown in which text from corpora and recipes is only ever text."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from headrace.visible import one_line

# ASCII punctuation that may begin markup (CommonMark 0.31, 2.4). A `.`, `)`, `-` or `+` does so only at the start of a
# line, where no such text is put.
_MARKUP = re.compile(r"([\\`*_\[\]|~$#])")
# What hubs make links of by themselves: addresses, and the names of their users.
_LINK = re.compile(r":(?=//)|@|(?<=www)\.", re.IGNORECASE)


def text(value: object) -> str:
    """Any value as plain text on one line."""
    escaped = _MARKUP.sub(r"\\\1", html.escape(one_line(str(value)), quote=False))
    return _LINK.sub(lambda found: f"\\{found[0]}", escaped)


def code(value: object) -> str:
    """A value as code on one line of a table or text, whatever is in it."""
    raw = one_line(str(value))
    if "`" in raw or "|" in raw:
        escaped = html.escape(raw, quote=False)
        return f"<code>{escaped.replace('|', '&#124;').replace('`', '&#96;')}</code>"
    return f"`{raw}`" if raw.strip() else "–"


def fenced(value: str, language: str = "") -> list[str]:
    """Lines of a block of code, whose fence is longer than any in it."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", value)), default=0))
    return [f"{fence}{language}", *value.rstrip("\n").split("\n"), fence, ""]


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], words: int = 1) -> list[str]:
    """Lines of a table: ``words`` columns of words on the left, then numbers; cells are Markdown, None a dash."""
    out = ["| " + " | ".join(columns) + " |"]
    out.append("|" + "".join("---|" if i < words else "---:|" for i in range(len(columns))))
    out += ["| " + " | ".join("–" if cell is None else str(cell) for cell in row) + " |" for row in rows]
    return [*out, ""]
