"""Compare two texts line by line: what a pair of duplicates shares and where it differs."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import NamedTuple

from headrace.visible import one_line

# difflib's time grows with every pair of lines that could match; beyond these limits, after removing the common head
# and tail, lines are paired by position.
MOST_LINES = 4000
CONTEXT = 3  # equal lines shown around a difference, as in diff -u
_SKIP = "…"


class Row(NamedTuple):
    """One line of a comparison.

    Attributes:
        mark: ``=`` both, ``|`` changed, ``<`` left only, ``>`` right only, ``…`` equal lines left out.
        left_line: the left line's number from 1, or None.
        left: the left line, without its line ending; for ``…`` the number of lines left out.
        right_line: the right line's number from 1, or None.
        right: the right line.
    """

    mark: str
    left_line: int | None
    left: str
    right_line: int | None
    right: str


def compare(left: str, right: str, context: int | None = CONTEXT) -> list[Row]:
    """Pair the lines of two texts.

    Args:
        left, right: the texts.
        context: equal lines kept on each side of a difference; None keeps all.
    """
    a, b = left.splitlines(), right.splitlines()
    rows: list[Row] = []
    for mark, i, j in _paired(a, b):
        rows.append(
            Row(
                mark,
                None if i is None else i + 1,
                "" if i is None else a[i],
                None if j is None else j + 1,
                "" if j is None else b[j],
            )
        )
    return rows if context is None else _shortened(rows, context)


def _paired(a: list[str], b: list[str]) -> Iterator[tuple[str, int | None, int | None]]:
    """(mark, left line, right line), both from 0, in order."""
    head = 0
    while head < min(len(a), len(b)) and a[head] == b[head]:
        head += 1
    tail = 0
    while tail < min(len(a), len(b)) - head and a[len(a) - 1 - tail] == b[len(b) - 1 - tail]:
        tail += 1
    yield from (("=", i, i) for i in range(head))
    middle_a, middle_b = a[head : len(a) - tail], b[head : len(b) - tail]
    if max(len(middle_a), len(middle_b)) > MOST_LINES:
        opcodes = [("replace", 0, len(middle_a), 0, len(middle_b))]
    else:
        opcodes = list(difflib.SequenceMatcher(None, middle_a, middle_b).get_opcodes())
    for _, i1, i2, j1, j2 in opcodes:
        for k in range(max(i2 - i1, j2 - j1)):
            i = head + i1 + k if i1 + k < i2 else None
            j = head + j1 + k if j1 + k < j2 else None
            if i is None or j is None:
                yield (">" if i is None else "<"), i, j
            else:
                yield ("=" if a[i] == b[j] else "|"), i, j
    yield from (("=", len(a) - k, len(b) - k) for k in range(tail, 0, -1))


def _shortened(rows: list[Row], context: int) -> list[Row]:
    """Rows near a difference; a row with mark ``…`` stands for the rest."""
    near = [False] * len(rows)
    for at, row in enumerate(rows):
        if row.mark != "=":
            for k in range(max(0, at - context), min(len(rows), at + context + 1)):
                near[k] = True
    shown: list[Row] = []
    left_out = 0
    for row, keep in zip(rows, near, strict=True):
        if not keep:
            left_out += 1
            continue
        if left_out:
            shown.append(Row(_SKIP, None, str(left_out), None, ""))
            left_out = 0
        shown.append(row)
    if left_out:
        shown.append(Row(_SKIP, None, str(left_out), None, ""))
    return shown


def render(rows: list[Row], width: int) -> str:
    """A comparison as two columns of text.

    Args:
        rows: from :func:`compare`.
        width: characters per line; longer cells continue on the next lines.
    """
    digits = max((len(str(row.left_line or row.right_line or 0)) for row in rows), default=1)
    cell = max(8, (width - 2 * digits - 5) // 2)
    lines = []
    for row in rows:
        if row.mark == _SKIP:
            lines.append(f"{_SKIP} {row.left} equal {'line' if row.left == '1' else 'lines'}")
            continue
        left, right = _cells(row.left, cell), _cells(row.right, cell)
        for k in range(max(len(left), len(right))):
            numbers = [str(n) if n is not None and k == 0 else "" for n in (row.left_line, row.right_line)]
            texts = [part[k] if k < len(part) else "" for part in (left, right)]
            line = f"{numbers[0]:>{digits}} {texts[0]:<{cell}} {' ' if row.mark == '=' else row.mark} "
            lines.append(f"{line}{numbers[1]:>{digits}} {texts[1]}".rstrip())
    return "\n".join(lines)


def _cells(text: str, width: int) -> list[str]:
    """A line cut to its column's width, with invisible characters named."""
    plain = one_line(text.expandtabs(4))
    return [plain[i : i + width] for i in range(0, len(plain), width)] or [""]
