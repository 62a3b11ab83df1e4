"""Find in an answer what the prompt asked for: headed sections, fenced code."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Possessive, so that a line of blanks, which models that have lost their way write, costs no more than its length.
_OPENS = re.compile(r"[ \t]*+(`{3,}+|~{3,}+)[ \t]*+([^\s`]*+)[^`]*+")


class Unparsed(Exception):  # noqa: N818 - what is wrong with an answer
    """An answer does not have what was asked for."""


def sections(answer: str, names: Sequence[str]) -> list[str]:
    """The text below each heading: ``[Name]``, ``## Name`` or ``**Name**`` on a line of its own, in this order.

    Raises:
        Unparsed: a heading is missing or out of place, or there is nothing below it.
    """
    found, at = [], 0
    for name in names:
        heading = re.compile(rf"^[ \t#*]*+\[?[ \t]*+{re.escape(name)}[ \t]*+\]?[ \t*]*+:?[ \t*]*+\r?$", re.I | re.M)
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
    """The language (lowercased, may be empty) and content of each fenced block that is closed (CommonMark, 4.5)."""
    lines, at, found = text.split("\n"), 0, []
    hopeless: dict[str, int] = {}
    while at < len(lines):
        opens = _OPENS.fullmatch(lines[at])
        at += 1
        if opens is not None and (end := _closing(lines, at, opens[1], hopeless)) is not None:
            found.append((opens[2].lower(), "".join(f"{line}\n" for line in lines[at:end])))
            at = end + 1
    return found


def _closing(lines: list[str], first: int, fence: str, hopeless: dict[str, int]) -> int | None:
    """The line that closes a fence: as many of its characters or more, and nothing else.

    Args:
        lines: of the text.
        first: where to begin.
        fence: what opened it.
        hopeless: the shortest fence of each character that no further line closes, so that none is sought twice.
    """
    if len(fence) >= hopeless.get(fence[0], len(fence) + 1):
        return None
    for at in range(first, len(lines)):
        line = lines[at].strip(" \t\r")
        if len(line) >= len(fence) and not line.strip(fence[0]):
            return at
    hopeless[fence[0]] = len(fence)
    return None


def only_code(text: str) -> tuple[str, str]:
    """The language and content of the single or longest fenced block.

    Raises:
        Unparsed: there is none, or it is empty.
    """
    blocks = [block for block in code_blocks(text) if block[1].strip()]
    if not blocks:
        raise Unparsed("no code in a closed fence" if "```" in text else "no fenced code")
    return max(blocks, key=lambda block: len(block[1]))
