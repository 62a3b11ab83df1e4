"""Check that a source is what the recipe takes it for: early where a look is enough, otherwise at the end."""

from __future__ import annotations

import difflib
import warnings
from itertools import islice
from typing import Any

from headrace.documents.inventory import SourceFiles
from headrace.documents.readers import reader
from headrace.documents.readers.base import Part, Record, Tally, lost
from headrace.documents.sink import EXAMPLES
from headrace.documents.sources import WHOLE, recipe_key
from headrace.errors import UserError
from headrace.flow.notices import Notice
from headrace.flow.task import TaskContext

PROBED_FILES, PROBED_ROWS = 3, 100


def probe(taken: SourceFiles, ctx: TaskContext) -> None:
    """Look at the first rows of a source, so that a wrong field name costs a moment rather than a run.

    Raises:
        UserError: none of the first rows has the text, and some have other fields.
    """
    tally = Tally()
    for file in taken.files[:PROBED_FILES]:
        if file.format in WHOLE or file.format in taken.source.readers:
            return
        ctx.at(f"{taken.name}:{file.name}")
        rows = reader(file.format).read(file, Part(), taken.source, tally)
        if any(isinstance(item, Record) for item in islice(rows, PROBED_ROWS)):
            return
    if tally.seen:
        raise no_text(taken, tally.seen)


def no_text(taken: SourceFiles, seen: list[str]) -> UserError:
    """The error for a source whose rows lack their text."""
    where = recipe_key(taken.name)
    if taken.source.is_chat:
        return UserError(
            f"The source {taken.name!r} yields no documents: its rows hold no conversation, but {', '.join(seen)}.",
            where,
            "Chat rows have `conversations`, `messages`, `instruction` and `output`, or messages of a tree; text needs "
            "another format.",
        )
    return UserError(
        f"The source {taken.name!r} yields no documents: its rows have no field {taken.source.text!r}.",
        f"{where}.text",
        f"Set it to the field that holds the text. The rows have: {', '.join(seen)}.",
    )


def require_named(taken: SourceFiles, named: dict[str, int], seen: list[str] | None) -> None:
    """Check that some row has each field that fills a column: a name that no row has is a mistake, not a null.

    Args:
        taken: the source.
        named: field named in the recipe -> number of rows that have it.
        seen: the fields of a row that lacks one; None if no row does.

    Raises:
        UserError: no row has the field.
    """
    if seen is None:
        if any(named) and not any(named.values()):
            said = f"source {taken.name}: plain files have no fields, so {', '.join(named)} of the recipe stay empty"
            warnings.warn(said, Notice, stacklevel=2)
        return
    for column, name in taken.source.fields.model_dump().items():
        if name is not None and not named[name]:
            near = difflib.get_close_matches(name, seen, 1)
            raise UserError(
                f"No row of the source {taken.name!r} has the field {name!r}.",
                f"{recipe_key(taken.name)}.fields.{column}",
                (f"Did you mean {near[0]!r}? " if near else "")
                + f"Its rows have: {', '.join(seen) or 'no other field'}.",
            )


def check_source(
    taken: SourceFiles,
    counts: dict[str, int],
    bad: list[dict[str, Any]],
    losses: list[dict[str, Any]],
    quarantines: list[str],
    seen: list[str],
    max_quarantined: float,
) -> None:
    """Check that a source has documents and that not too much of it is bad or lost; every loss is reported.

    Args:
        taken: the source.
        counts: its counts.
        bad: the first quarantine entries for bad rows.
        losses: the first quarantine entries for damaged files.
        quarantines: its quarantine files.
        seen: the fields of a row without text.
        max_quarantined: the maximum share in [0, 1]: bad and lost rows of all rows, plus lost bytes of all bytes of the
            files; 1 allows anything.

    Raises:
        UserError: it has none, or too much is bad or lost.
    """
    rows = counts["documents"] + counts["quarantined"] + counts["lost_rows"]
    if not counts["documents"] and seen:
        raise no_text(taken, seen)
    if not counts["documents"] and taken.source.synthetic is not None:
        fix = "See failed.jsonl in its artifact, and `headrace status`."
        raise UserError(f"Nothing was made for the source {taken.name!r}.", f"synthetic.{taken.name}", fix)
    if not counts["documents"]:
        why = "its file is empty" if counts["files"] == 1 else f"its {counts['files']:,} files are empty"
        if losses:
            why = f"its files are damaged: {_told(losses)}"
        if bad:
            why = f"all {rows:,} rows are bad: {_told(bad)}"
        raise UserError(
            f"The source {taken.name!r} yields no documents: {why}.",
            quarantines[0] if quarantines else recipe_key(taken.name),
            "Check its files and its format.",
        )
    said = []
    if counts["quarantined"]:
        said.append(f"{counts['quarantined']:,} bad rows in {rows:,}")
    if losses:
        said.append(f"{lost(counts['lost_rows'], counts['lost_bytes'])} lost in damaged files")
    share = (counts["quarantined"] + counts["lost_rows"]) / rows + counts["lost_bytes"] / max(taken.bytes, 1)
    share = min(share, 1.0)  # bytes that are missing are an estimate, as many as there are
    if share > max_quarantined:
        raise UserError(
            f"The source {taken.name!r} has {' and '.join(said)}, {share:.2%}, but only {max_quarantined:.2%} is "
            f"allowed. The first: {_told(losses + bad)}.",
            quarantines[0],
            "Fix or exclude those files, or raise documents.max_quarantined.",
        )
    if losses:
        warnings.warn(f"source {taken.name}: {said[-1]}: {_told(losses)}", Notice, stacklevel=2)


def _told(entries: list[dict[str, Any]]) -> str:
    """The first quarantine entries, in words."""
    return "; ".join(f"{e['file']} line {e['line']}: {e['error']}" for e in entries[:EXAMPLES])
