"""Find in an answer what the prompt asked for: headed sections, fenced code."""

from __future__ import annotations

import re
from collections.abc import Sequence

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([^\s`]*)[^\n`]*\n(.*?)^[ \t]*\1[ \t]*$", re.DOTALL | re.MULTILINE)


class Unparsed(Exception):  # noqa: N818 - what is wrong with an answer
    """An answer does not have what was asked for."""


def sections(answer: str, names: Sequence[str]) -> list[str]:
    """The text below each heading: ``[Name]``, ``## Name`` or ``**Name**`` on a line of its own, in this order.

    Raises:
        Unparsed: a heading is missing or out of place, or there is nothing below it.
    """
    found, at = [], 0
    for name in names:
        heading = re.compile(rf"^[ \t#*]*\[?[ \t]*{re.escape(name)}[ \t]*\]?[ \t*]*:?[ \t*]*$", re.I | re.M)
        match = heading.search(answer, at)
        if match is None:
            raise Unparsed(f"no section {name!r}")
        found.append((match.start(), match.end()))
        at = match.end()
    ends = [start for start, _ in found[1:]] + [len(answer)]
    texts = [answer[begin:end].strip() for (_, begin), end in zip(found, ends, strict=True)]
    for name, text in zip(names, texts, strict=True):
        if not text:
            raise Unparsed(f"nothing in the section {name!r}")
    return texts


def code_blocks(text: str) -> list[tuple[str, str]]:
    """The language (lowercased, may be empty) and content of each fenced block."""
    return [(match[2].lower(), match[3]) for match in _FENCE.finditer(text)]


def only_code(text: str) -> tuple[str, str]:
    """The language and content of the single or longest fenced block.

    Raises:
        Unparsed: there is none, or it is empty.
    """
    blocks = [block for block in code_blocks(text) if block[1].strip()]
    if not blocks:
        raise Unparsed("no code in a closed fence" if "```" in text else "no fenced code")
    return max(blocks, key=lambda block: len(block[1]))
