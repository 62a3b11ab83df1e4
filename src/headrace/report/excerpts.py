"""Short excerpts of documents for the page: where a benchmark item was found, where two copies differ."""

from __future__ import annotations

import difflib
import re

LENGTH = 600  # characters of an excerpt
BEFORE = 120  # characters of it before the point of interest

Excerpt = tuple[str, list[tuple[int, int]]]
"""Text, and the spans in it that are marked."""


def beginning(text: str, length: int = LENGTH) -> Excerpt:
    """The first characters, with nothing marked."""
    return (text if len(text) <= length else text[:length] + "…"), []


def around(text: str, start: int, end: int) -> Excerpt:
    """The context of characters ``start`` to ``end``, with these marked."""
    low = max(0, start - BEFORE)
    high = max(low + LENGTH, min(end, low + 2 * LENGTH))
    lead, tail = "…" if low else "", "…" if high < len(text) else ""
    shift = len(lead) - low
    shown = lead + text[low:high] + tail
    return shown, [(start + shift, min(end, high) + shift)]


def compared(one: str, other: str, length: int = LENGTH, before: int = BEFORE) -> tuple[Excerpt, Excerpt]:
    """Two similar texts from shortly before their first difference, with differences marked.

    Args:
        one, other: the texts.
        length: characters of an excerpt.
        before: characters of it before the difference, of texts longer than it.
    """
    same = _common_prefix(one, other)
    if same == len(one) == len(other):
        return beginning(one, length), beginning(other, length)
    low = max(0, same - before) if max(len(one), len(other)) > length else 0
    parts = [_pieces(text[low : low + length]) for text in (one, other)]
    marks: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    starts = [_starts(pieces) for pieces in parts]
    matcher = difflib.SequenceMatcher(None, parts[0], parts[1], autojunk=False)
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag != "equal":
            for side, (first, last) in enumerate(((a, b), (c, d))):
                if last > first:
                    marks[side].append((starts[side][first], starts[side][last]))
    lead = "…" if low else ""
    excerpts = []
    for text, found in zip((one, other), marks, strict=True):
        tail = "…" if low + length < len(text) else ""
        shifted = [(start + len(lead), end + len(lead)) for start, end in found]
        excerpts.append((lead + text[low : low + length] + tail, shifted))
    return excerpts[0], excerpts[1]


def alike(one: str, other: str) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The spans of words and symbols that two texts have in common, in order, in each."""
    parts = [_pieces(text) for text in (one, other)]
    matcher = difflib.SequenceMatcher(str.isspace, parts[0], parts[1], autojunk=False)
    starts = [_starts(pieces) for pieces in parts]
    blocks = [block for block in matcher.get_matching_blocks() if block.size]
    return (
        [(starts[0][block.a], starts[0][block.a + block.size]) for block in blocks],
        [(starts[1][block.b], starts[1][block.b + block.size]) for block in blocks],
    )


def _common_prefix(one: str, other: str) -> int:
    most = min(len(one), len(other))
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _pieces(text: str) -> list[str]:
    """Words, and everything else as single characters."""
    return re.findall(r"\w+|\W", text)


def _starts(pieces: list[str]) -> list[int]:
    at = [0]
    for piece in pieces:
        at.append(at[-1] + len(piece))
    return at
