"""Two documents side by side: their lines in pairs, with what differs within a line marked."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.flow.artifact import Artifact
from headrace.recipe.schema import Near
from headrace.report.excerpts import compared
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import counted, size
from headrace.select.why.side_by_side import Row, compare
from headrace.view.texts import beginning_of, marked

MOST_BYTES = 1 << 18  # of a text that is compared; the rest is left out
MOST_ROWS = 400  # lines shown
MOST_CHARACTERS = 50_000  # in them: a character that is shown by its code takes 14 bytes
MOST_MARKED = 2_000_000  # pairs of characters in lines in which what differs is looked for: 0.2 s if all are alike
LINE = 600  # characters of a line
BEFORE = 150  # characters of a long line before what differs
_CLASSES = {"=": None, "|": "changed", "<": "left", ">": "right", "…": "skipped"}

Spans = list[tuple[int, int]]


@dataclass(frozen=True)
class Line:
    """A pair of lines, as :class:`headrace.select.why.side_by_side.Row`, and what is marked in each."""

    mark: str
    left_line: int | None
    left: str
    left_marks: Spans
    right_line: int | None
    right: str
    right_marks: Spans


@dataclass(frozen=True)
class Comparison:
    """Two texts side by side.

    Attributes:
        jaccard: their exact similarity; None if they are too long to compare here.
        lines: pairs of lines near differences.
        left_out: further pairs that are not shown.
        cut: whether only the beginnings were compared.
    """

    jaccard: float | None
    lines: list[Line]
    left_out: int
    cut: bool


def compare_rows(documents: Artifact, row: int, other: int, near: Near) -> Comparison:
    """Two documents of a run side by side.

    Args:
        documents: the documents.
        row, other: their rows.
        near: how similarity is measured.

    Raises:
        IndexError: there is no such row.
    """
    return compare_documents((documents, row), (documents, other), near)


def compare_documents(one: tuple[Artifact, int], other: tuple[Artifact, int], near: Near) -> Comparison:
    """The same for documents of different artifacts, each given with its row."""
    (left, more), (right, further) = (beginning_of(*document, MOST_BYTES) for document in (one, other))
    return compare_beginnings(left, right, near, more or further)


def compare_beginnings(one: str, other: str, near: Near, cut: bool = False) -> Comparison:
    """Two texts side by side; ``cut`` if these are beginnings."""
    from headrace.select.duplicates.jaccard import pair_jaccard
    from headrace.select.why.nearest import cleaned

    rows = compare(one, other)
    jaccard = None if cut else pair_jaccard(cleaned(one), cleaned(other), near.ngram, near.unit == "words")
    lines: list[Line] = []
    pairs = shown = 0
    for row in rows[:MOST_ROWS]:
        shown += min(len(row.left), LINE) + min(len(row.right), LINE)
        if shown > MOST_CHARACTERS:
            break
        if row.mark == "|":
            pairs += min(len(row.left), LINE) * min(len(row.right), LINE)
        lines.append(_line(row, pairs <= MOST_MARKED))
    return Comparison(jaccard, lines, len(rows) - len(lines), cut)


def _line(row: Row, within: bool) -> Line:
    if row.mark == "|" and within:
        (left, left_marks), (right, right_marks) = compared(row.left, row.right, LINE, BEFORE)
        return Line(row.mark, row.left_line, left, left_marks, row.right_line, right, right_marks)
    left, right = (text if len(text) <= LINE else text[:LINE] + "…" for text in (row.left, row.right))
    return Line(row.mark, row.left_line, left, [], row.right_line, right, [])


def draw_comparison(shown: Comparison, one: object, other: object) -> Markup:
    """A table with a column for each text, under the names of the two."""
    if not any(line.mark not in "=…" for line in shown.lines):
        same = f"The first {size(MOST_BYTES)} are equal." if shown.cut else "The texts are equal, line by line."
        return element("p", same, class_="note")
    columns = element("colgroup", [element("col", class_=name) for name in ("line", "side", "line", "side")])
    head = element("tr", element("th", one, colspan=2, scope="col"), element("th", other, colspan=2, scope="col"))
    rows = [_drawn(line) for line in shown.lines]
    notes = [f"Only the first {size(MOST_BYTES)} of each are compared."] if shown.cut else []
    if shown.left_out:
        notes.append(f"{counted(shown.left_out, 'more line')} not shown.")
    return join(
        [
            element(
                "div",
                element("table", columns, element("thead", head), element("tbody", rows), class_="diff"),
                class_="scroll",
                tabindex=0,
            ),
            element("p", " ".join(notes), class_="note") if notes else None,
        ]
    )


def _drawn(line: Line) -> Markup:
    class_ = _CLASSES[line.mark]
    if line.mark == "…":
        return element("tr", element("td", f"{counted(int(line.left), 'equal line')}", colspan=4), class_=class_)
    sides = ((line.left_line, line.left, line.left_marks), (line.right_line, line.right, line.right_marks))
    cells = [
        [element("td", number, class_="n"), element("td", marked(text, 0, marks), class_="code")]
        for number, text, marks in sides
    ]
    return element("tr", cells, class_=class_)
