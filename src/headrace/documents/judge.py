"""What is said of a source that is not as the recipe takes it to be: early where a look tells, else at the end."""

from __future__ import annotations

from itertools import islice
from typing import Any

from headrace.documents.inventory import SourceFiles
from headrace.documents.readers import reader
from headrace.documents.readers.base import Part, Record, Tally
from headrace.documents.sources import WHOLE
from headrace.errors import UserError

PROBED_FILES, PROBED_ROWS = 3, 100


def probe(taken: SourceFiles) -> None:
    """Look at the first rows of a source, so that a wrong field name costs a moment and not a run.

    Raises:
        UserError: none of the first rows has the text, and some have other fields instead.
    """
    tally = Tally()
    for file in taken.files[:PROBED_FILES]:
        if file.format in WHOLE:
            return
        rows = reader(file.format).read(file, Part(), taken.source, tally)
        if any(isinstance(item, Record) for item in islice(rows, PROBED_ROWS)):
            return
    if tally.seen:
        raise no_text(taken, tally.seen)


def no_text(taken: SourceFiles, seen: list[str]) -> UserError:
    """The error of a source whose rows lack their text."""
    where = f"sources.{taken.name}"
    if taken.source.is_chat:
        return UserError(
            f"The source {taken.name!r} yields no document: its rows hold no conversation, but {', '.join(seen)}.",
            where,
            "Chat rows have `conversations`, `messages`, or `instruction` and `output`; text takes another format.",
        )
    return UserError(
        f"The source {taken.name!r} yields no document: its rows have no field {taken.source.text!r}.",
        f"{where}.text",
        f"Set it to the field that holds the text; the rows have: {', '.join(seen)}.",
    )


def judge(
    taken: SourceFiles,
    counts: dict[str, int],
    bad: list[dict[str, Any]],
    quarantines: list[str],
    seen: list[str],
    max_quarantined: float,
) -> None:
    """See that a source has documents, and not too many bad rows.

    Args:
        taken: the source.
        counts: its counts.
        bad: the first entries of its quarantine.
        quarantines: its quarantine files.
        seen: the fields of a row that lacked its text.
        max_quarantined: the largest share of bad rows in [0, 1].

    Raises:
        UserError: it has not.
    """
    examples = "; ".join(f"{entry['file']} line {entry['line']}: {entry['error']}" for entry in bad[:3])
    quarantined = counts["quarantined"]
    rows = counts["documents"] + quarantined
    if not counts["documents"] and seen:
        raise no_text(taken, seen)
    if not counts["documents"]:
        why = f"all {rows} rows are bad: {examples}" if rows else f"its {counts['files']} files hold nothing"
        raise UserError(
            f"The source {taken.name!r} yields no document: {why}.",
            quarantines[0] if quarantines else f"sources.{taken.name}",
            "Check its files and its format.",
        )
    if quarantined > max_quarantined * rows:
        raise UserError(
            f"The source {taken.name!r} has {quarantined} bad rows in {rows}, {quarantined / rows:.2%}, where "
            f"{max_quarantined:.2%} are allowed. The first: {examples}.",
            quarantines[0],
            "Mend or exclude those files, or raise documents.max_quarantined.",
        )
